import { describe, expect, it } from 'vitest'
import { AUDIT_GENESIS, auditText } from './audit-text.js'
import type { AuditEntry } from './rest/index.js'

const entry: AuditEntry = {
  id: 'log-1',
  team_id: 'team-1',
  created_at: '2026-11-28T12:00:00.000Z',
  actor_type: 'key',
  actor_id: 'key-1',
  actor_name: 'Ключ "ci"',
  action: 'capsule.create',
  resource_type: 'capsule',
  resource_id: 'cl-1',
  scope: 'team',
  outcome: 'success',
  details: { operation_id: 'op-1', error: 'none' },
  seq: 1,
  prev_hash: AUDIT_GENESIS,
}

describe('the text that an entry is hashed by', () => {
  it('stays the same for ever, or every chain there is would break', () => {
    expect(auditText(entry)).toBe(
      '{"action":"capsule.create","actor_id":"key-1","actor_name":"Ключ \\"ci\\"","actor_type":"key","created_at":"2026-11-28T12:00:00.000Z",' +
        '"details":{"error":"none","operation_id":"op-1"},"id":"log-1","outcome":"success",' +
        `"prev_hash":"${AUDIT_GENESIS}","resource_id":"cl-1","resource_type":"capsule","scope":"team","seq":1,"team_id":"team-1"}`,
    )
  })

  it('does not depend on the order of fields, nor on the hash itself', () => {
    const { details, ...rest } = entry
    const turned = { hash: 'x', details: { error: 'none', operation_id: 'op-1' }, ...rest }
    expect(auditText(turned)).toBe(auditText(entry))
  })

  it('is that of its own fields, whichever were there before in the same number', () => {
    const two = (details: AuditEntry['details']): string => auditText({ ...entry, details })
    const [first, second] = [two({ error: 'e', operation_id: 'o' }), two({ operation_id: 'o', exit_code: '1' })]
    expect(second).toContain('"details":{"exit_code":"1","operation_id":"o"}')
    expect(two({ error: 'e', operation_id: 'o' })).toBe(first)
  })

  it('is another one for any other value, also of a field of a newer version', () => {
    expect(auditText({ ...entry, details: { ...entry.details, error: 'some' } })).not.toBe(auditText(entry))
    const newer = { ...entry, country: 'x' }
    expect(auditText(newer)).not.toBe(auditText(entry))
  })
})
