import { auditIds, errorText, type Logger } from '@wrenn/base'
import {
  type AccessActor,
  type AccessEntry,
  listAuditedTeams,
  type WaitingEntry,
  writeAccess,
} from '../../store/audit-access.js'
import type { Db } from '../../store/database.js'
import type { Notifications } from '../../store/notifications.js'
import type { CapsuleRef } from '../capsules/index.js'
import { Rounds } from '../rounds.js'
import { successor } from './successor.js'

/** Also the channel's name in the trigger of the migration. */
const CHANNEL = 'team_audit_changed'
const WRITE_EVERY_MS = 500
const BATCH = 500
/** Entries that wait for the database; each is a few KiB at most. */
const MAX_WAITING = 10_000
/** How long a stop waits for a database that is away. */
const LAST_TRIES = 10
const LOST = 'team.lose_entries'

/** Notes one thing that was done inside a capsule. */
export type RecordAccess = (
  action: string,
  outcome: AccessEntry['outcome'],
  details: Readonly<Record<string, string | number | undefined>>,
) => void

interface AccessLogDeps {
  readonly db: Db
  readonly notifications: Pick<Notifications, 'isFresh' | 'listen'>
  readonly logger: Logger
  /** @default 10 000 */
  readonly maxWaiting?: number
}

/**
 * Commands and file operations in the audit trails of teams that want them. Nobody waits for an entry: they are written some at a time, in
 * the order in which they came. A stop writes what waits; a process that dies loses what it had not written, of half a second.
 */
export class AccessLog {
  readonly #deps: AccessLogDeps
  readonly #rounds: Rounds
  #teams: ReadonlySet<string> | undefined
  /** Grows with each change; what was read before one is not kept after it. */
  #version = 0
  #waiting: { readonly entry: AccessEntry; readonly id: string; readonly happenedAt: number }[] = []
  /** By team, how many of them. */
  readonly #waitingOf = new Map<string, number>()
  readonly #lost = new Map<string, number>()
  #lastId: string = auditIds.create()
  #writtenAt: Date | undefined

  constructor(deps: AccessLogDeps) {
    this.#deps = deps
    const forget = (): void => this.forget()
    deps.notifications.listen(CHANNEL, forget, forget)
    const onFailure = (error: unknown): void =>
      deps.logger.warn({ error: errorText(error) }, 'audit.access_not_written')
    this.#rounds = new Rounds(() => this.#write(), WRITE_EVERY_MS, onFailure)
  }

  start(): void {
    this.#rounds.start()
  }

  /** Writes what waits. What the database does not take is logged as lost. */
  async stop(): Promise<void> {
    await this.#rounds.stop()
    for (let tries = 0; tries < LAST_TRIES && this.#waiting.length > 0; tries++) {
      await this.#write().catch(async () => await new Promise((resolve) => setTimeout(resolve, WRITE_EVERY_MS)))
    }
    if (this.#waiting.length > 0) this.#deps.logger.error({ count: this.#waiting.length }, 'audit.access_lost')
  }

  /** @returns what notes things that `actor` does inside the capsule; `undefined` where its team does not want that */
  async recorderFor({ teamId, id }: CapsuleRef, actor: AccessActor): Promise<RecordAccess | undefined> {
    const { isFresh } = this.#deps.notifications
    const teams = (isFresh ? this.#teams : undefined) ?? (await this.#load())
    if (!teams.has(teamId)) return undefined
    return (action, outcome, details) => {
      this.#add({ teamId, actor, action, resource: { type: 'capsule', id }, outcome, details: textsOf(details) })
    }
  }

  /** For who has just changed what a team wants, and cannot wait to hear of that. */
  forget(): void {
    this.#version++
    this.#teams = undefined
  }

  async #load(): Promise<ReadonlySet<string>> {
    const version = this.#version
    const teams = new Set(await listAuditedTeams(this.#deps.db))
    if (version === this.#version) this.#teams = teams
    return teams
  }

  /** A team may have as many places as are left: half of them alone, and always some for the next one. */
  #add(entry: AccessEntry): void {
    const left = (this.#deps.maxWaiting ?? MAX_WAITING) - this.#waiting.length
    if ((this.#waitingOf.get(entry.teamId) ?? 0) >= left) {
      this.#lost.set(entry.teamId, (this.#lost.get(entry.teamId) ?? 0) + 1)
      return
    }
    this.#enqueue(entry)
  }

  #enqueue(entry: AccessEntry): void {
    this.#lastId = successor(this.#lastId)
    this.#waiting.push({ entry, id: this.#lastId, happenedAt: performance.now() })
    this.#waitingOf.set(entry.teamId, (this.#waitingOf.get(entry.teamId) ?? 0) + 1)
  }

  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.slice(0, BATCH)
      const now = performance.now()
      const entries = batch.map(
        ({ entry, id, happenedAt }): WaitingEntry => ({ ...entry, id, ageMs: now - happenedAt }),
      )
      this.#writtenAt = await writeAccess(this.#deps.db, entries, this.#writtenAt)
      this.#waiting.splice(0, batch.length)
      for (const { entry } of batch) this.#leave(entry)
      if (this.#waiting.length === 0) this.#tellLost()
    }
  }

  #leave({ teamId }: AccessEntry): void {
    const left = (this.#waitingOf.get(teamId) ?? 1) - 1
    if (left > 0) this.#waitingOf.set(teamId, left)
    else this.#waitingOf.delete(teamId)
  }

  #tellLost(): void {
    for (const [teamId, count] of this.#lost) {
      const details = { entries: String(count) }
      this.#deps.logger.error({ teamId, count }, 'audit.access_lost')
      const resource = { type: 'team', id: teamId } as const
      this.#enqueue({ teamId, actor: undefined, action: LOST, resource, outcome: 'failure', details })
    }
    this.#lost.clear()
  }
}

const MAX_VALUE_BYTES = 4096

function textsOf(details: Readonly<Record<string, string | number | undefined>>): Record<string, string> {
  const texts: Record<string, string> = {}
  for (const [name, value] of Object.entries(details)) if (value !== undefined) texts[name] = bounded(String(value))
  return texts
}

/** The database holds neither a NUL nor half a character. */
function bounded(text: string): string {
  const bytes = Buffer.from(text.slice(0, MAX_VALUE_BYTES + 1)).subarray(0, MAX_VALUE_BYTES + 1)
  const whole = bytes.toString().replaceAll('\0', '\ufffd')
  if (bytes.length <= MAX_VALUE_BYTES) return whole
  const cut = bytes
    .subarray(0, MAX_VALUE_BYTES - 3)
    .toString()
    .replaceAll('\0', '\ufffd')
  return `${cut.replace(/\ufffd$/, '')}…`
}
