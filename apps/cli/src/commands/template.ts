import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { AppError, isErrno } from '@wrenn/base'
import { type BuildInfo, type BuildTemplateOptions, type Recipe, TemplateNotFoundError, type Wrenn } from '@wrenn/sdk'
import { readDockerfile } from '@wrenn/sdk/dockerfile'
import { type Command, Option } from 'commander'
import { environmentVariable } from '../config.js'
import { connect } from '../connection.js'
import { type CommonOptions, contextOf, ExitCode, withJson } from '../context.js'
import { BuildLog } from '../dockerfile/build-log.js'
import { buildArgsOf, secretsOf } from '../dockerfile/build-values.js'
import { FolderContext } from '../dockerfile/folder-context.js'
import { aloneFileOf, type GivenImages, recipeOfFile, withImageFiles } from '../dockerfile/image-file.js'
import { Interrupt } from '../interrupt.js'
import { printable, table } from '../output.js'
import { openTemplateFile, saveTemplate } from '../template-file.js'
import { listTemplates, showTemplate, templateJson } from '../template-view.js'
import { collect, parseInteger, parseMib, showBytes, showSpan } from '../units.js'

const PROGRESS_EVERY_MS = 5_000

interface ImportOptions extends CommonOptions {
  readonly tag: readonly string[]
  readonly vcpus?: number
  readonly memory?: number
}

interface BuildOptions extends ImportOptions, GivenImages {
  readonly file?: string
  readonly buildArg: readonly string[]
  readonly secret: readonly string[]
  readonly target?: string
  readonly cache: boolean
  readonly hostTag?: readonly string[]
}

interface ListOptions extends CommonOptions {
  readonly all?: boolean
  readonly builds?: string | true
  readonly state?: 'open' | 'ready' | 'error' | 'cancelled'
}

const buildHelp = `
What of Dockerfiles is understood: docs/dockerfiles.md. FROM takes the name of a template: \`wrenn template ls --all\`. ^C cancels the build.
--image-file takes what \`docker save\` and \`podman save\` write, or the tar of an OCI layout, also of gzip, zstd or xz. Alone it is the template, without a
Dockerfile; as NAME=FILE the Dockerfile's FROM NAME begins with it. A path that looks like that is written ./a=b.tar.
With --json each line of the log is an object on its own line, and so is the build itself, the last one.

Examples:
  wrenn template build web
  wrenn template build web -f deploy/Dockerfile --build-arg VERSION=3 ./service
  wrenn template build web --secret id=npm,src=$HOME/.npmrc --no-cache
  docker save -o app.tar app:2 && wrenn template build app --image-file app.tar
  wrenn template build app --image-file all.tar --image app:2
  wrenn template build web --image-file base=app.tar -f Dockerfile .
  wrenn template build web --tag v2          capsules are created from it as web:v2`

/** `wrenn template`. */
export function addTemplate(program: Command): void {
  const template = program
    .command('template')
    .description('what capsules start from: build, list, show, export, import and remove')
    .addHelpText(
      'after',
      '\nExamples:\n  wrenn template build web .\n  wrenn capsule create --template web\n  wrenn template ls',
    )
  addBuild(template)
  addList(template)
  addInfo(template)
  addExport(template)
  addImport(template)
  addRemove(template)
}

function addBuild(template: Command): void {
  const command = template
    .command('build <name> [context]')
    .description(
      'build a template from a Dockerfile and the files of a folder (default: this one), or from an image as a file',
    )
    .option('-f, --file <path>', 'the Dockerfile, or - for stdin (default: Dockerfile in the context)')
    .option('--build-arg <name=value>', 'value of an ARG; a name alone is taken from the environment', collect, [])
    .option('--secret <id=name,src=file>', 'for RUN --mount=type=secret; env=VARIABLE instead of src', collect, [])
    .option(
      '--image-file <[name=]file>',
      'an image as a file: the template itself, or by its name for FROM',
      collect,
      [],
    )
    .option('--image <name>', 'which image of the file (default: it has one alone)')
    .option('--target <stage>', 'end with this stage (default: the last one)')
    .option('--tag <tag>', 'call the build name:tag; may be given several times', collect, [])
    .option('--vcpus <n>', 'virtual CPUs (default: those of what it begins with)', parseInteger)
    .option('--memory <mib>', 'memory in MiB (default: that of what it begins with)', parseMib)
    .option('--host-tag <tag>', 'only on a host that has this tag, may be repeated', collect)
    .option('--no-cache', 'take nothing from what earlier builds have kept')
    .addHelpText('after', buildHelp)
  withJson(command).action(async (name: string, folder: string | undefined, options: BuildOptions) => {
    const { output } = contextOf(options)
    const secrets = await secretsOf(options.secret, environmentVariable)
    const { notes = [], ...recipe } = await recipeOf(folder, options, Object.keys(secrets))
    for (const note of notes) output.note(note)
    const own = { secrets, noCache: !options.cache, ...(options.hostTag && { hostTags: options.hostTag }) }
    await followBuild(options, (templates, build) => templates.build(name, recipe, { ...build, ...own }))
  })
}

/** Shows the log of a build while it is made, and what it has become; ^C cancels it. */
async function followBuild(
  options: ImportOptions,
  make: (templates: Wrenn['templates'], build: BuildTemplateOptions) => Promise<BuildInfo>,
): Promise<void> {
  const { config, output } = contextOf(options)
  const { tag: tags, vcpus, memory: memoryMib } = options
  using interrupt = new Interrupt()
  const log = new BuildLog(output)
  const { templates } = await connect(config)
  try {
    const build = await make(templates, {
      tags,
      ...(vcpus === undefined ? {} : { vcpus }),
      ...(memoryMib === undefined ? {} : { memoryMib }),
      signal: interrupt.signal,
      onLine: (line) => log.show(line),
    })
    output.result(buildJson(build), () => build.name)
  } catch (error) {
    if (interrupt.exitCode === undefined) throw error
    output.note('The build was cancelled.')
    throw new ExitCode(interrupt.exitCode)
  }
}

async function recipeOf(
  folder: string | undefined,
  options: BuildOptions,
  secrets: readonly string[],
): Promise<Recipe & { readonly notes?: readonly string[] }> {
  const { file, buildArg, target } = options
  const alone = aloneFileOf(options)
  if (alone !== undefined) {
    if ([folder, file, target, ...buildArg, ...secrets].some((one) => one !== undefined)) {
      throw new AppError(
        'invalid_request',
        '--image-file without a name takes no Dockerfile, nor what is for one: give it as NAME=FILE.',
      )
    }
    return await recipeOfFile(alone, options.image)
  }
  const root = folder ?? '.'
  const path = file ?? join(root, 'Dockerfile')
  const source = await dockerfileOf(path)
  const context = await FolderContext.open(root, path === '-' ? undefined : path)
  const recipe = await readDockerfile(source, {
    buildArgs: buildArgsOf(buildArg, environmentVariable),
    secrets,
    context,
    ...(target === undefined ? {} : { target }),
  })
  return options.imageFile.length === 0 ? recipe : await withImageFiles(recipe, options)
}

function addList(template: Command): void {
  const list = template
    .command('ls')
    .description('list templates of the team, or its builds')
    .option('-a, --all', 'also the templates that images bring')
    .option('--builds [name]', 'the newest builds, of one template or of all')
    .addOption(
      new Option('--state <state>', 'with --builds: those in this state; open: those that have not ended').choices([
        'open',
        'ready',
        'error',
        'cancelled',
      ]),
    )
    .addHelpText('after', '\nExamples:\n  wrenn template ls --all\n  wrenn template ls --builds web --state error')
  withJson(list).action(async (options: ListOptions) => {
    const context = contextOf(options)
    if (options.builds === undefined) return await listTemplates(context, options)
    const { templates } = await connect(context.config)
    const builds = await templates.listBuilds({
      ...(options.builds === true ? {} : { name: options.builds }),
      ...(options.state === undefined ? {} : { state: options.state }),
    })
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

function addExport(template: Command): void {
  const command = template
    .command('export <name> <file>')
    .description('write a template of the team to a file, which another platform can import')
    .addHelpText(
      'after',
      `
The file has the template's disk and the image below it, user, directory, variables, start and ready command. Its variables and files are
not encrypted. Its memory is not in it: the import makes it anew. ^C leaves no file.

Example:
  wrenn template export web web.wrenn`,
    )
  withJson(command).action(async (name: string, file: string, options: CommonOptions) => {
    const { config, output } = contextOf(options)
    using interrupt = new Interrupt()
    const { templates } = await connect(config)
    const archive = await templates.export(name, { signal: interrupt.signal })
    let told = performance.now()
    try {
      const bytes = await saveTemplate(archive, file, (received) => {
        if (performance.now() - told < PROGRESS_EVERY_MS) return
        told = performance.now()
        output.note(`${showBytes(received)} so far`)
      })
      output.result({ name, file, bytes }, () => `${file} (${showBytes(bytes)})`)
    } catch (error) {
      if (interrupt.exitCode === undefined) throw error
      throw new ExitCode(interrupt.exitCode)
    }
  })
}

function addImport(template: Command): void {
  const command = template
    .command('import <file> [name]')
    .description('make a template of a file that `wrenn template export` has written (default name: as it was called)')
    .option('--tag <tag>', 'call it name:tag; may be given several times', collect, [])
    .option('--vcpus <n>', 'virtual CPUs (default: as it had)', parseInteger)
    .option('--memory <mib>', 'memory in MiB (default: as it had)', parseMib)
    .addHelpText(
      'after',
      `
The template boots from its disk, its start command is run and its ready command waited for: its memory is made anew. A damaged file is refused.
With --json each line of the log is an object on its own line, and so is the build itself, the last one. ^C cancels the import.

Examples:
  wrenn template import web.wrenn
  wrenn template import web.wrenn web-copy --memory 1024`,
    )
  withJson(command).action(async (file: string, name: string | undefined, options: ImportOptions) => {
    const { upload, name: called, sizeBytes } = await openTemplateFile(file)
    contextOf(options).output.note(`${printable(called)}, ${showBytes(sizeBytes)}`)
    await followBuild(options, (templates, build) => templates.import(name ?? called, upload, build))
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

function buildJson({ createdAt, endedAt, cachedSteps, logLines, ...build }: BuildInfo): object {
  return { ...build, cached_steps: cachedSteps, log_lines: logLines, created_at: createdAt, ended_at: endedAt }
}

function showBuilds(builds: readonly BuildInfo[], now: Date): string {
  const rows = builds.map(({ id, name, tags, state, reason, by, steps, cachedSteps, createdAt, endedAt }) => [
    id,
    [name, ...tags].join(' '),
    state,
    printable(by?.name ?? ''),
    showSpan((endedAt ?? now).getTime() - createdAt.getTime()),
    cachedSteps === undefined ? '' : `${cachedSteps}/${steps}`,
    showSpan(now.getTime() - createdAt.getTime()),
    printable(reason?.message ?? '').slice(0, 80),
  ])
  return table(['BUILD', 'TEMPLATE', 'STATE', 'BY', 'TOOK', 'CACHED', 'AGE', 'WHY'], rows)
}
