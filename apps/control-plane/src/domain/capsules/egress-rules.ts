import { AppError } from '@wrenn/base'
import type { EgressPolicy, EgressWish } from '@wrenn/protocol'
import { z } from 'zod'
import type { CapsuleRow } from '../../store/schema.js'
import { hashJson } from '../operations/index.js'
import type { Keyring } from '../secrets/index.js'

/** Headers for a host with their values, which nobody is shown. */
export interface SecretRule {
  readonly host: string
  readonly headers: Readonly<Record<string, string>>
}

const kept = z.array(z.object({ host: z.string(), headers: z.record(z.string(), z.string()) }))

type Sealed = Pick<CapsuleRow, 'id' | 'egress_rules'>

/** As a capsule's row keeps them. @throws AppError `not_supported` without a key */
export function sealRules(keyring: Keyring, capsuleId: string, rules: readonly SecretRule[]): string | null {
  return rules.length === 0 ? null : keyring.seal(JSON.stringify(rules), contextOf(capsuleId))
}

/** @throws AppError `not_supported` when the key that they were encrypted by is not there */
export function openRules(keyring: Keyring, { id, egress_rules: sealed }: Sealed): readonly SecretRule[] {
  return sealed === null ? [] : kept.parse(JSON.parse(keyring.open(sealed, contextOf(id)).text))
}

/** What a copy has of its source's. @throws as {@link openRules} */
export function copyRules(keyring: Keyring, source: Sealed, copyId: string): string | null {
  return sealRules(keyring, copyId, openRules(keyring, source))
}

/**
 * A wish in its two parts: what may be shown, and what may not.
 * @param known what the capsule has: headers that are named without values keep theirs
 * @throws AppError `invalid_request` for a header that has no value yet
 */
export function splitWish(
  { rules: wished = [], ...policy }: EgressWish,
  known: () => readonly SecretRule[],
): { readonly policy: EgressPolicy; readonly rules: readonly SecretRule[] } {
  const before = wished.some(({ headers }) => Array.isArray(headers)) ? known() : []
  const rules = wished.map(({ host, headers }) => {
    if (!Array.isArray(headers)) return { host, headers }
    const values = before.find((rule) => rule.host === host)?.headers ?? {}
    return { host, headers: Object.fromEntries(headers.map((name) => [name, keptValue(host, name, values)])) }
  })
  const shown = rules.map(({ host, headers }) => ({ host, headers: Object.keys(headers) }))
  return { policy: { ...policy, ...(shown.length > 0 && { rules: shown }) }, rules }
}

function keptValue(host: string, name: string, values: SecretRule['headers']): string {
  const value = Object.hasOwn(values, name) ? values[name] : undefined
  if (value !== undefined) return value
  throw new AppError('invalid_request', `egress.rules: ${name} of ${host} has no value that could be kept: give one.`)
}

/**
 * The hash of a request with a policy in it. A plain one of short secrets could be guessed by whoever reads the database: it has a keyed
 * one of each value in its place.
 * @throws AppError `not_supported` without a key, where there are values
 */
export function hashWithRules(keyring: Keyring, input: { readonly egress?: EgressWish | undefined }): string {
  const rules = input.egress?.rules
  if (rules === undefined) return hashJson(input)
  const hidden = rules.map(({ host, headers }) => {
    if (Array.isArray(headers)) return { host, headers }
    const digest = ([name, value]: [string, string]): [string, string] => [name, keyring.digest(value, 'egress')]
    return { host, headers: Object.fromEntries(Object.entries(headers).map(digest)) }
  })
  return hashJson({ ...input, egress: { ...input.egress, rules: hidden } })
}

function contextOf(capsuleId: string): string {
  return `egress:${capsuleId}`
}
