import { readFile } from 'node:fs/promises'
import { AppError, isErrno } from '@wrenn/base'

type Environment = (name: string) => string | undefined

/**
 * `KEY=VALUE`s as commander gathers them; a name alone is what the environment has.
 * @throws AppError `invalid_request`
 */
export function buildArgsOf(given: readonly string[], environment: Environment): Record<string, string> {
  const pairs = given.flatMap((text): [string, string][] => {
    const [, name = text, value] = /^([^=]+)=([\s\S]*)$/.exec(text) ?? []
    if (!/^[A-Za-z_]\w*$/.test(name)) {
      throw new AppError('invalid_request', `--build-arg ${text}: a name, an equals sign and a value are needed.`)
    }
    const found = value ?? environment(name)
    return found === undefined ? [] : [[name, found]]
  })
  return Object.fromEntries(pairs)
}

/**
 * Secrets by their ids: `id=NAME,src=FILE`, `id=NAME,env=VARIABLE`, or `id=NAME` of the variable of that name, as
 * Docker has it.
 * @throws AppError `invalid_request`
 */
export async function secretsOf(given: readonly string[], environment: Environment): Promise<Record<string, string>> {
  const secrets: Record<string, string> = {}
  for (const text of given) {
    const fields = new Map(text.split(',').map((field) => split(field)))
    const id = fields.get('id')
    const unknown = [...fields.keys()].find((name) => !['id', 'src', 'source', 'env', 'type'].includes(name))
    // The text itself could be a secret that was given in a wrong form.
    if (id === undefined || id === '' || unknown !== undefined) {
      throw new AppError(
        'invalid_request',
        '--secret: id=NAME and src=FILE or env=VARIABLE are needed, with a comma between.',
      )
    }
    const file = fields.get('src') ?? fields.get('source')
    const value = file === undefined ? environment(fields.get('env') ?? id) : await contentOf(id, file)
    if (value === undefined) {
      throw new AppError('invalid_request', `--secret ${id}: the environment has no ${fields.get('env') ?? id}.`)
    }
    if (value === '') throw new AppError('invalid_request', `--secret ${id}: it is empty.`)
    secrets[id] = value
  }
  return secrets
}

function split(field: string): [string, string] {
  const at = field.indexOf('=')
  return at < 0 ? [field, ''] : [field.slice(0, at), field.slice(at + 1)]
}

async function contentOf(id: string, path: string): Promise<string> {
  const bytes = await readFile(path).catch((error: unknown) => {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'EISDIR', 'EACCES')) throw error
    throw new AppError('invalid_request', `--secret ${id}: ${path} cannot be read (${error.code}).`)
  })
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new AppError('invalid_request', `--secret ${id}: ${path} is not UTF-8 text.`, { cause })
  }
}
