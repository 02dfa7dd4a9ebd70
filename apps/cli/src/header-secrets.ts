import { readFile } from 'node:fs/promises'
import { AppError, isErrno } from '@wrenn/base'
import type { EgressRuleWish } from '@wrenn/sdk'

type Environment = (name: string) => string | undefined

const FORM =
  'host=HOST,header=NAME and env=VARIABLE or src=FILE are needed, with a comma between; scheme=WORD comes before the value'
const FIELDS: ReadonlySet<string> = new Set(['host', 'header', 'env', 'src', 'scheme'])

/**
 * `--header-secret`s: what headers are set to is read from the environment or a file (`-` is stdin), and never given as an argument,
 * which all of the machine may read.
 * @throws AppError `invalid_request`; no value is in its message
 */
export async function headerRulesOf(given: readonly string[], environment: Environment): Promise<EgressRuleWish[]> {
  const rules = new Map<string, Record<string, string>>()
  for (const text of given) {
    const fields = new Map(text.split(',').map(split))
    const { host, header, scheme, env, src } = Object.fromEntries(fields)
    const isKnown = [...fields.keys()].every((name) => FIELDS.has(name))
    // The text itself could be a secret that was given in a wrong form.
    if (!isKnown || !host || !header || (env === undefined) === (src === undefined)) {
      throw new AppError('invalid_request', `--header-secret: ${FORM}.`)
    }
    const value = src === undefined ? environment(env ?? '') : await contentOf(src)
    if (value === undefined || value === '') {
      throw new AppError(
        'invalid_request',
        `--header-secret: ${src === undefined ? `the variable ${env}` : src} is empty.`,
      )
    }
    const headers = rules.get(host) ?? {}
    headers[header] = scheme === undefined ? value : `${scheme} ${value}`
    rules.set(host, headers)
  }
  return [...rules].map(([host, headers]) => ({ host, headers }))
}

function split(field: string): [string, string] {
  const at = field.indexOf('=')
  return at < 0 ? [field, ''] : [field.slice(0, at), field.slice(at + 1)]
}

async function contentOf(path: string): Promise<string> {
  try {
    return (await readFile(path === '-' ? '/dev/stdin' : path, 'utf8')).replace(/\r?\n$/, '')
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'EISDIR', 'EACCES')) throw error
    throw new AppError('invalid_request', `--header-secret: ${path} cannot be read (${error.code}).`)
  }
}
