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
  const fields: string[] = []
  for (const key of Object.keys(record).sort()) {
    const value = record[key]
    if (value === undefined) continue
    fields.push(`${JSON.stringify(key)}:${isObject(value) ? objectText(value) : JSON.stringify(value)}`)
  }
  return `{${fields.join(',')}}`
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
