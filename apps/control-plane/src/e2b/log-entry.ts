import type { AuditRow } from '../store/schema.js'

/** From the least to the most. */
export const logLevels = ['debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof logLevels)[number]

/** A line of a sandbox's log. */
export interface LogEntry {
  readonly at: Date
  readonly level: LogLevel
  readonly message: string
  /** `logger`, and what is known beside the message. */
  readonly fields: Readonly<Record<string, string>>
}

interface Told {
  readonly level: LogLevel
  readonly message: string
}

/** What somebody asked for: its name, and what it is called when it is done. */
const operations: Readonly<Record<string, readonly [name: string, done: string]>> = {
  'capsule.create': ['Create', 'Created'],
  'capsule.pause': ['Pause', 'Paused'],
  'capsule.resume': ['Resume', 'Resumed'],
  'capsule.hibernate': ['Hibernation', 'Hibernated'],
  'capsule.move': ['Move', 'Moved to another host'],
  'capsule.fork': ['Fork', 'Forked'],
  'capsule.rollback': ['Rollback', 'Rolled back'],
  'capsule.atomic_exec': ['Atomic command', 'Atomic command ended'],
  'capsule.destroy': ['Kill', 'Killed'],
  'checkpoint.create': ['Checkpoint', 'Checkpoint made'],
  'checkpoint.delete': ['Deletion of a checkpoint', 'Checkpoint deleted'],
  'snapshot.create': ['Snapshot', 'Snapshot made'],
}

/** What happens at once, or what nobody asked for. */
const events: Readonly<Record<string, Told>> = {
  'capsule.update': { level: 'debug', message: 'Settings changed' },
  'capsule.egress': { level: 'info', message: 'Network policy changed' },
  'capsule.exit': { level: 'error', message: 'The guest has ended' },
  'capsule.lost': { level: 'error', message: 'Its host does not have it any more' },
  'capsule.missing': { level: 'warn', message: 'Its host does not answer' },
  'capsule.found': { level: 'info', message: 'Its host answers again' },
}

const processes: Readonly<Record<string, string>> = { 'capsule.exec': 'Process', 'capsule.open_terminal': 'Terminal' }
const SIGNAL = 'capsule.signal_process'

/** All that a log can tell: of the sandbox itself, and of what runs in it. */
export const lifecycleActions: readonly string[] = [...Object.keys(operations), ...Object.keys(events)]
export const processActions: readonly string[] = [...Object.keys(processes), SIGNAL]

/** What of an entry's details is told: no command line, no path, no address, and nothing about hosts. */
const shown = [
  'operation_id',
  'error',
  'cause',
  'reason',
  'checkpoint_id',
  'snapshot_id',
  'fields',
  'process',
  'user',
  'exit_code',
  'signal',
  'timed_out',
  'oom_killed',
  'detached',
  'duration_ms',
]

/** An entry of the audit trail as a line of the log of its sandbox; `undefined` for what a log does not tell. */
export function toLogEntry({ at, action, outcome, details }: AuditRow): LogEntry | undefined {
  const told = toldOf(action, outcome, details)
  if (told === undefined) return undefined
  const isProcess = processActions.includes(action)
  const fields: Record<string, string> = { logger: isProcess ? 'process' : 'sandbox', action }
  if (isProcess) Object.assign(fields, programOf(details.command))
  for (const name of shown) {
    const value = details[name]
    if (value !== undefined) fields[name] = value
  }
  return { at, ...told, fields }
}

function toldOf(action: string, outcome: AuditRow['outcome'], details: AuditRow['details']): Told | undefined {
  const why = details.error ?? details.cause
  const because = why === undefined ? '' : `: ${why}`
  const operation = operations[action]
  if (operation !== undefined) {
    const [name, done] = operation
    if (outcome === 'accepted') return { level: 'debug', message: `${name} begun` }
    if (outcome === 'failure') return { level: 'error', message: `${name} failed${because}` }
    return { level: 'info', message: done }
  }
  const event = events[action]
  if (event !== undefined) return { level: event.level, message: `${event.message}${because}` }
  if (action === SIGNAL) {
    return outcome === 'failure'
      ? { level: 'warn', message: 'Signal not sent' }
      : { level: 'info', message: 'Signal sent' }
  }
  const process = processes[action]
  return process === undefined ? undefined : processTold(process, outcome, details, because)
}

function processTold(what: string, outcome: AuditRow['outcome'], details: AuditRow['details'], because: string): Told {
  if (outcome === 'accepted') return { level: 'info', message: `${what} started` }
  if (outcome === 'failure') return { level: 'error', message: `${what} failed${because}` }
  const { exit_code: exitCode, signal, oom_killed: isOom, timed_out: isLate } = details
  if (isOom !== undefined) return { level: 'warn', message: `${what} ended: out of memory` }
  if (isLate !== undefined) return { level: 'warn', message: `${what} ended at its timeout` }
  if (signal !== undefined) return { level: 'info', message: `${what} ended by ${signal}` }
  if (exitCode !== undefined) return { level: 'info', message: `${what} ended with exit code ${exitCode}` }
  return { level: 'info', message: `${what} goes on unwatched` }
}

/** The first word of a command alone, which entries have as a JSON array that may be cut: arguments may be secrets. */
function programOf(command: string | undefined): { readonly program?: string } {
  const [, first] = /^\[("(?:[^"\\]|\\.)*")/.exec(command ?? '') ?? []
  return first === undefined ? {} : { program: String(JSON.parse(first)) }
}
