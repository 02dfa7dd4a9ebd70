import type { AuditEntry } from './rest/audit.js'

/** What the first entry of every chain follows. */
export const AUDIT_GENESIS = '0'.repeat(64)

/**
 * The text that an entry's hash is the SHA-256 of, as UTF-8: all fields but `hash` and the addresses as JSON without spaces, keys of every object
 * in the order of their UTF-16 units. Entries name people by id: the addresses are looked up, so that an account can be forgotten.
 */
export function auditText({ hash: _, actor_email: __, resource_email: ___, ...entry }: AuditEntry): string {
  return objectText(entry)
}

/** By hand: a sorted copy for `JSON.stringify` takes twice as long, and an export has millions. */
function objectText(record: Readonly<Record<string, unknown>>): string {
  let text = ''
  for (const { key, name } of fieldsOf(Object.keys(record))) {
    const value = record[key]
    if (value === undefined) continue
    text += `${text === '' ? '' : ','}${name}:${isObject(value) ? objectText(value) : JSON.stringify(value)}`
  }
  return `{${text}}`
}

interface Field {
  readonly key: string
  /** The key as JSON. */
  readonly name: string
}

interface Shape {
  readonly keys: readonly string[]
  /** Sorted by key. */
  readonly fields: readonly Field[]
}

const MAX_KEPT_KEYS = 64
/** The last object with so many keys: entries that follow each other have the same. */
const shapes = new Map<number, Shape>()

function fieldsOf(keys: readonly string[]): readonly Field[] {
  const last = shapes.get(keys.length)
  if (last?.keys.every((key, at) => key === keys[at])) return last.fields
  const fields = keys.toSorted().map((key) => ({ key, name: JSON.stringify(key) }))
  if (keys.length <= MAX_KEPT_KEYS) shapes.set(keys.length, { keys, fields })
  return fields
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
