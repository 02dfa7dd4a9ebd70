import { describe, expect, it } from 'vitest'
import type { AuditRow } from '../store/schema.js'
import { lifecycleActions, processActions, toLogEntry } from './log-entry.js'

type Some = Pick<AuditRow, 'action'> & Partial<Pick<AuditRow, 'outcome' | 'details'>>

function rowOf({ action, outcome = 'success', details = {} }: Some): AuditRow {
  return {
    ...{ id: 'log-1', team_id: 'team-1', at: new Date(0), actor_type: 'key', actor_id: 'key-1', actor_name: 'a name' },
    ...{ action, resource_type: 'capsule', resource_id: 'cl-1', scope: 'team', outcome, request_id: 'req-1' },
    ...{ ip: '192.0.2.7', details, seq: 1, prev_hash: 'a', hash: 'b' },
  }
}

const told = (some: Some): string => {
  const entry = toLogEntry(rowOf(some))
  return `${entry?.level} ${entry?.message}`
}

describe('a line of a log', () => {
  it('says of what was asked for that it began, how it ended, and why it failed', () => {
    const action = 'capsule.resume'
    expect(told({ action, outcome: 'accepted' })).toBe('debug Resume begun')
    expect(told({ action })).toBe('info Resumed')
    const details = { error: 'host_unavailable' }
    expect(told({ action, outcome: 'failure', details })).toBe('error Resume failed: host_unavailable')
    const ended = { action: 'capsule.exit', outcome: 'failure', details: { cause: 'guest_panic' } } as const
    expect(told(ended)).toBe('error The guest has ended: guest_panic')
  })

  it('says how a process ended', () => {
    const action = 'capsule.exec'
    for (const [details, text] of [
      [{ exit_code: '0' }, 'info Process ended with exit code 0'],
      [{ exit_code: '137', oom_killed: 'true' }, 'warn Process ended: out of memory'],
      [{ signal: 'SIGKILL', timed_out: 'true' }, 'warn Process ended at its timeout'],
      [{ signal: 'SIGTERM' }, 'info Process ended by SIGTERM'],
      [{ detached: 'true' }, 'info Process goes on unwatched'],
    ] as const) {
      expect(told({ action, details })).toBe(text)
    }
  })

  it('has of a command its first word alone, also of one that was cut', () => {
    const programOf = (command: string) =>
      toLogEntry(rowOf({ action: 'capsule.exec', details: { command } }))?.fields.program
    expect(programOf('["/opt/a \\"b\\"","--token","hush"]')).toBe('/opt/a "b"')
    expect(programOf('["sh","-c","hus…')).toBe('sh')
    expect(programOf('["/a/long/na…')).toBeUndefined()
  })

  it('tells of all that it knows, and never who it was, from where, or what was noted beside it', () => {
    const details = { path: '/a', host_id: 'host-1', host_because: 'b', allow: 'c', ends_at: 'd', command: '["e","f"]' }
    for (const action of [...lifecycleActions, ...processActions]) {
      for (const outcome of ['accepted', 'success', 'failure'] as const) {
        const entry = toLogEntry(rowOf({ action, outcome, details }))
        const isProcess = processActions.includes(action)
        const known = { logger: isProcess ? 'process' : 'sandbox', action, ...(isProcess && { program: 'e' }) }
        expect([action, entry?.fields]).toEqual([action, known])
      }
    }
    expect(toLogEntry(rowOf({ action: 'capsule.read_file' }))).toBeUndefined()
  })
})
