import type { RecipeSecret, RecipeStep } from '../recipe.js'
import { type Instruction, jsonForm } from './instructions.js'
import { refuse } from './refuse.js'
import type { Scope } from './scope.js'

const DEFAULT_SECRET_MODE = 0o400
/** As the platform has them (`StartTemplateBuild` in openapi.json). */
const SECRET_ID = /^[\w.-]{1,100}$/
const OWNER = /^\d{1,10}:\d{1,10}$/

interface Mounts {
  readonly secrets: RecipeSecret[]
  readonly scratch: string[]
}

/**
 * The step of a `RUN`.
 * @param known Secrets that there are.
 * @throws WrennError for mounts that are not supported, and a secret that is needed and missing
 */
export function runStep(
  instruction: Instruction,
  shell: readonly string[],
  scope: Scope,
  known: ReadonlySet<string>,
): RecipeStep {
  const { secrets, scratch } = mountsOf(instruction, scope, known)
  const envs = scope.args
  return {
    type: 'RUN',
    ...commandOf(instruction, shell),
    ...(Object.keys(envs).length === 0 ? {} : { envs }),
    ...(secrets.length === 0 ? {} : { secrets }),
    ...(scratch.length === 0 ? {} : { scratch }),
  }
}

function commandOf(instruction: Instruction, shell: readonly string[]): Pick<RecipeStep, 'args' | 'shell'> {
  const { rest, heredocs, line } = instruction
  if (rest === '') throw refuse(line, 'RUN', 'needs a command')
  const [first] = heredocs
  if (first !== undefined && heredocs.length === 1 && rest === first.word) return scriptOf(instruction, shell)
  const program = jsonForm(rest)
  if (program !== undefined) {
    const last = program.at(-1)
    if (last === undefined || program[0] === '') throw refuse(line, 'RUN', 'needs a program')
    return { args: [last], shell: program.slice(0, -1) }
  }
  const bodies = heredocs.map(({ content, name }) => `${content}${name}\n`).join('')
  // The shell reads them: tabs that `<<-` drops are gone already.
  return { args: [heredocs.length === 0 ? rest : `${rest}\n${bodies}`], shell }
}

/** A here-document alone is the script itself, for the program that its first line names or else the shell. */
function scriptOf({ heredocs: [heredoc] }: Instruction, shell: readonly string[]): Pick<RecipeStep, 'args' | 'shell'> {
  const content = heredoc?.content ?? ''
  if (!content.startsWith('#!')) return { args: [content], shell }
  const script = 'f=$(mktemp) && trap \'rm -f "$f"\' EXIT && printf %s "$1" >"$f" && chmod 755 "$f" && "$f"'
  return { args: [content], shell: ['/bin/sh', '-c', script, 'heredoc'] }
}

function mountsOf(instruction: Instruction, scope: Scope, known: ReadonlySet<string>): Mounts {
  const { line, flags } = instruction
  const mounts: Mounts = { secrets: [], scratch: [] }
  for (const [name, value] of flags) {
    if (name === 'mount') addMount(mounts, instruction, fieldsOf(scope.expand(instruction, value)), known)
    else if (!((name === 'network' && value === 'default') || (name === 'security' && value === 'sandbox'))) {
      throw refuse(line, 'RUN', `has --${name}${value === '' ? '' : `=${value}`}, which is not supported`)
    }
  }
  return mounts
}

function fieldsOf(mount: string): ReadonlyMap<string, string> {
  const aliases: Readonly<Record<string, string>> = { dst: 'target', destination: 'target' }
  return new Map(
    mount.split(',').map((field) => {
      const [, name = field, value = 'true'] = /^([^=]*)=([\s\S]*)$/.exec(field) ?? []
      return [aliases[name] ?? name, value] as const
    }),
  )
}

function addMount(
  { secrets, scratch }: Mounts,
  { line }: Instruction,
  fields: ReadonlyMap<string, string>,
  known: ReadonlySet<string>,
): void {
  const type = fields.get('type') ?? 'bind'
  const target = fields.get('target')
  const fail = (sentence: string) => refuse(line, 'RUN', sentence)
  if (target !== undefined && !target.startsWith('/'))
    throw fail(`has --mount=type=${type} with the target ${target}, which must begin with a slash`)
  if (type === 'cache' || type === 'tmpfs') {
    if (fields.has('from') || fields.has('source'))
      throw fail(`has --mount=type=${type} with content of its own, which is not supported: COPY it`)
    if (target === undefined) throw fail(`has --mount=type=${type}, which needs a target`)
    scratch.push(target)
    return
  }
  if (type !== 'secret') throw fail(`has --mount=type=${type}, which is not supported: secret, cache and tmpfs are`)
  const id = fields.get('id') ?? target?.slice(target.lastIndexOf('/') + 1)
  if (id === undefined || id === '') throw fail('has --mount=type=secret, which needs an id')
  if (!SECRET_ID.test(id)) throw fail(`has a secret ${id}; ids have letters, digits and _ . - alone, at most 100`)
  if (!known.has(id)) {
    if (fields.get('required') === 'true')
      throw fail(`needs the secret ${id}, which was not given: --secret id=${id},src=FILE`)
    return
  }
  const env = fields.get('env')
  if (env !== undefined && !/^[^=]+$/.test(env)) throw fail(`has a secret whose env=${env} is no name of a variable`)
  const path = target ?? (env === undefined ? `/run/secrets/${id}` : undefined)
  const mode = fields.has('mode') ? Number.parseInt(fields.get('mode') ?? '', 8) : DEFAULT_SECRET_MODE
  const owner = `${fields.get('uid') ?? '0'}:${fields.get('gid') ?? '0'}`
  if (!(mode >= 0 && mode <= 0o777) || !OWNER.test(owner))
    throw fail('has a secret whose mode, uid or gid is no number')
  secrets.push({ id, ...(path === undefined ? {} : { path, mode, owner }), ...(env === undefined ? {} : { env }) })
}
