import { AppError } from '@wrenn/base'
import { MAX_RULE_VALUE_LENGTH, MAX_RULES_BYTES, MAX_SECRET_LENGTH } from '@wrenn/protocol'
import type { Db } from '../../store/database.js'
import { findSecretsNamed } from '../../store/secrets.js'
import type { SecretRule } from './egress-rules.js'

/** Stands in a value for the secret of the team of that name. */
const REFERENCE = /\$\{secrets\.([^{}]+)\}/g

/** Names of the secrets that rules refer to. */
function secretNamesOf(rules: readonly SecretRule[]): string[] {
  const values = rules.flatMap(({ headers }) => Object.values(headers))
  const names = values.flatMap((value) => [...value.matchAll(REFERENCE)].map(([, name = '']) => name.toLowerCase()))
  return [...new Set(names)].sort()
}

/**
 * Refuses rules that could not be told to a host, whatever their secrets will be.
 * @param known names that the capsule refers to already: what is gone since is no reason against another change
 * @returns names of the secrets that they refer to; `null` for none
 * @throws AppError `invalid_request` for a secret that there is none of, and for more than a rule may set
 */
export async function checkReferences(
  db: Db,
  teamId: string,
  rules: readonly SecretRule[],
  known: readonly string[] | null,
): Promise<readonly string[] | null> {
  const names = secretNamesOf(rules)
  if (names.length === 0) return null
  let bytes = 0
  for (const { host, headers } of rules) {
    bytes += host.length
    for (const [name, value] of Object.entries(headers)) {
      const longest = value.replace(REFERENCE, 'x'.repeat(MAX_SECRET_LENGTH)).length
      if (longest > MAX_RULE_VALUE_LENGTH) {
        const message = `${name} of ${host} may become longer than ${MAX_RULE_VALUE_LENGTH} characters: a secret counts ${MAX_SECRET_LENGTH}`
        throw new AppError('invalid_request', `egress.rules: ${message}.`)
      }
      bytes += name.length + longest
    }
  }
  if (bytes > MAX_RULES_BYTES) {
    const message = `all together may become ${bytes} bytes, where each secret counts ${MAX_SECRET_LENGTH}; at most ${MAX_RULES_BYTES} are allowed`
    throw new AppError('invalid_request', `egress.rules: ${message}.`)
  }
  const there = new Set((await findSecretsNamed(db, teamId, names)).map(({ name }) => name))
  const missing = names.find((name) => !there.has(name) && known?.includes(name) !== true)
  if (missing !== undefined) {
    throw new AppError('invalid_request', `egress.rules: there is no secret ${missing.slice(0, 200)}; create it first.`)
  }
  return names
}

/** Rules as hosts are told them. A header that refers to a secret which is gone is not set. */
export function fillRules(rules: readonly SecretRule[], secrets: ReadonlyMap<string, string>): SecretRule[] {
  return rules.flatMap(({ host, headers }) => {
    const filled = Object.entries(headers).flatMap(([name, value]) => {
      const isWhole = [...value.matchAll(REFERENCE)].every(([, secret = '']) => secrets.has(secret.toLowerCase()))
      return isWhole ? [[name, fill(value, secrets)] as const] : []
    })
    return filled.length === 0 ? [] : [{ host, headers: Object.fromEntries(filled) }]
  })
}

function fill(value: string, secrets: ReadonlyMap<string, string>): string {
  return value.replace(REFERENCE, (_, secret: string) => secrets.get(secret.toLowerCase()) ?? '')
}
