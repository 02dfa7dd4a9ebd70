import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { AppError, isErrno } from '@wrenn/base'
import { type BuildInfo, TemplateNotFoundError } from '@wrenn/sdk'
import { readDockerfile } from '@wrenn/sdk/dockerfile'
import type { Command } from 'commander'
import { environmentVariable } from '../config.js'
import { connect } from '../connection.js'
import { type CommonOptions, contextOf, ExitCode, withJson } from '../context.js'
import { BuildLog } from '../dockerfile/build-log.js'
import { buildArgsOf, secretsOf } from '../dockerfile/build-values.js'
import { FolderContext } from '../dockerfile/folder-context.js'
import { Interrupt } from '../interrupt.js'
import { printable, table } from '../output.js'
import { listTemplates, showTemplate, templateJson } from '../template-view.js'
import { collect, parseInteger, parseMib, showSpan } from '../units.js'

interface BuildOptions extends CommonOptions {
  readonly file?: string
  readonly buildArg: readonly string[]
  readonly secret: readonly string[]
  readonly target?: string
  readonly tag: readonly string[]
  readonly vcpus?: number
  readonly memory?: number
  readonly cache: boolean
}

const buildHelp = `
What of Dockerfiles is understood: docs/dockerfiles.md. FROM takes the name of a template: \`wrenn template ls --all\`. ^C cancels the build.
With --json each line of the log is an object on its own line, and so is the build itself, the last one.

Examples:
  wrenn template build web
  wrenn template build web -f deploy/Dockerfile --build-arg VERSION=3 ./service
  wrenn template build web --secret id=npm,src=$HOME/.npmrc --no-cache
  wrenn template build web --tag v2          capsules are created from it as web:v2`

/** `wrenn template`. */
export function addTemplate(program: Command): void {
  const template = program
    .command('template')
    .description('what capsules start from: build, list, show and remove')
    .addHelpText(
      'after',
      '\nExamples:\n  wrenn template build web .\n  wrenn capsule create --template web\n  wrenn template ls',
    )
  addBuild(template)
  addList(template)
  addInfo(template)
  addRemove(template)
}

function addBuild(template: Command): void {
  const command = template
    .command('build <name> [context]')
    .description('build a template from a Dockerfile and the files of a folder (default: this one)')
    .option('-f, --file <path>', 'the Dockerfile, or - for stdin (default: Dockerfile in the context)')
    .option('--build-arg <name=value>', 'value of an ARG; a name alone is taken from the environment', collect, [])
    .option('--secret <id=name,src=file>', 'for RUN --mount=type=secret; env=VARIABLE instead of src', collect, [])
    .option('--target <stage>', 'end with this stage (default: the last one)')
    .option('--tag <tag>', 'call the build name:tag; may be given several times', collect, [])
    .option('--vcpus <n>', 'virtual CPUs (default: those of what it begins with)', parseInteger)
    .option('--memory <mib>', 'memory in MiB (default: that of what it begins with)', parseMib)
    .option('--no-cache', 'take nothing from what earlier builds have kept')
    .addHelpText('after', buildHelp)
  withJson(command).action(async (name: string, folder: string | undefined, options: BuildOptions) => {
    const { config, output } = contextOf(options)
    using interrupt = new Interrupt()
    const root = folder ?? '.'
    const path = options.file ?? join(root, 'Dockerfile')
    const source = await dockerfileOf(path)
    const context = await FolderContext.open(root, path === '-' ? undefined : path)
    const secrets = await secretsOf(options.secret, environmentVariable)
    const { notes, ...recipe } = await readDockerfile(source, {
      buildArgs: buildArgsOf(options.buildArg, environmentVariable),
      secrets: Object.keys(secrets),
      context,
      ...(options.target === undefined ? {} : { target: options.target }),
    })
    for (const note of notes) output.note(note)
    const log = new BuildLog(output)
    const { templates } = await connect(config)
    try {
      const build = await templates.build(name, recipe, {
        secrets,
        tags: options.tag,
        noCache: !options.cache,
        ...(options.vcpus === undefined ? {} : { vcpus: options.vcpus }),
        ...(options.memory === undefined ? {} : { memoryMib: options.memory }),
        signal: interrupt.signal,
        onLine: (line) => log.show(line),
      })
      output.result(buildJson(build), () => build.name)
    } catch (error) {
      if (interrupt.exitCode === undefined) throw error
      output.note('The build was cancelled.')
      throw new ExitCode(interrupt.exitCode)
    }
  })
}

function addList(template: Command): void {
  const list = template
    .command('ls')
    .description('list templates of the team, or its builds')
    .option('-a, --all', 'also the templates that images bring')
    .option('--builds [name]', 'the newest builds, of one template or of all')
    .addHelpText('after', '\nExamples:\n  wrenn template ls --all\n  wrenn template ls --builds web')
  withJson(list).action(async (options: CommonOptions & { all?: boolean; builds?: string | true }) => {
    const context = contextOf(options)
    if (options.builds === undefined) return await listTemplates(context, options)
    const { templates } = await connect(context.config)
    const builds = await templates.listBuilds(options.builds === true ? {} : { name: options.builds })
    context.output.result(builds.map(buildJson), () => showBuilds(builds, new Date()))
  })
}

function addInfo(template: Command): void {
  const info = template
    .command('info <name>')
    .description('what a template is, and its newest builds')
    .addHelpText('after', '\nExample:\n  wrenn template info web')
  withJson(info).action(async (name: string, options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { templates } = await connect(config)
    const found = (await templates.list()).find((one) => one.name === name || one.aliases.includes(name))
    const builds = found?.platform === true ? [] : await templates.listBuilds({ name, limit: 10 })
    if (found === undefined && builds.length === 0) {
      throw new TemplateNotFoundError(`There is no template "${name}".`, { code: 'template_not_found' })
    }
    const json = { ...(found === undefined ? { name } : templateJson(found)), builds: builds.map(buildJson) }
    output.result(json, () =>
      [
        ...(found === undefined ? [] : [showTemplate(found)]),
        ...(builds.length === 0 ? [] : [showBuilds(builds, new Date())]),
      ].join('\n\n'),
    )
  })
}

function addRemove(template: Command): void {
  const remove = template
    .command('rm <name...>')
    .description(
      'delete templates, and cancel builds of them that are under way; capsules that were started from them go on',
    )
    .addHelpText('after', '\nExample:\n  wrenn template rm web')
  withJson(remove).action(async (names: string[], options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { templates } = await connect(config)
    for (const name of names) await templates.delete(name, { cancelBuilds: true })
    output.result({ deleted: names }, () => names.join('\n'))
  })
}

async function dockerfileOf(path: string): Promise<string> {
  if (path === '-') return await text(process.stdin)
  return await readFile(path, 'utf8').catch((error: unknown) => {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'EISDIR', 'EACCES')) throw error
    throw new AppError(
      'invalid_request',
      `The Dockerfile ${path} cannot be read (${error.code}); -f names another one.`,
    )
  })
}

function buildJson({ id, name, tags, state, reason, createdAt, endedAt }: BuildInfo): object {
  return { id, name, tags, state, reason, created_at: createdAt, ended_at: endedAt }
}

function showBuilds(builds: readonly BuildInfo[], now: Date): string {
  const rows = builds.map(({ id, name, tags, state, reason, createdAt, endedAt }) => [
    id,
    [name, ...tags].join(' '),
    state,
    showSpan((endedAt ?? now).getTime() - createdAt.getTime()),
    showSpan(now.getTime() - createdAt.getTime()),
    printable(reason?.message ?? '').slice(0, 80),
  ])
  return table(['BUILD', 'TEMPLATE', 'STATE', 'TOOK', 'AGE', 'WHY'], rows)
}
