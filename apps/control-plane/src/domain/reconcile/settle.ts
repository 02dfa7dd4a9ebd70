import type { Logger } from '@wrenn/base'
import type { Capsule } from '@wrenn/protocol/host'
import type { Host } from '../../host/host.js'
import type { HostCopy } from '../../host/hosts.js'
import { type CapsulePatch, recordObservation, refreshCapsule } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import { hasLiveOperation } from '../../store/operations.js'
import type { CapsuleRow } from '../../store/schema.js'
import { settledIn, writeDestroyed } from '../capsules/index.js'
import { exitOf, factsOf, savedFactsOf } from '../hosts/index.js'
import { destroyOnHost } from '../operations/index.js'
import { followHost } from './follow-host.js'
import { newerCopyOf } from './newer-copy.js'

/** An absence counts as final only when it was seen this often. */
const COMPARISONS_UNTIL_LOST = 2

interface SettlerDeps {
  readonly db: Db
  /** `undefined`: none; there is nothing of these capsules anywhere. */
  readonly host: Host | undefined
  /** What all hosts have of a capsule. @throws AppError `host_unavailable` while one of them does not answer */
  readonly copiesOf: (capsuleId: string) => Promise<readonly HostCopy[]>
  readonly logger: Logger
  /** How long an answering host must be without a capsule before that counts as lost. */
  readonly lostGraceMs: number
  /** Why a capsule is lost, a sentence. @default its host answers and does not have it */
  readonly lostBecause?: string
}

interface Absence {
  readonly sinceMs: number
  readonly comparisons: number
}

/**
 * Lets one capsule's row follow what its host says, by the lifecycle table. The row must have been read before the host was
 * asked: then a difference that nobody else is at work on is a real one, and the compare-and-set finds those who are.
 */
export class Settler {
  readonly #deps: SettlerDeps
  readonly #absences = new Map<string, Absence>()
  readonly #reported = new Set<string>()

  constructor(deps: SettlerDeps) {
    this.#deps = deps
  }

  /** Whether a capsule is not where it should be, so that a look soon is worth it. */
  get hasAbsences(): boolean {
    return this.#absences.size > 0
  }

  /** Forgets absences of capsules that are no longer expected anywhere. */
  expectOnly(ids: ReadonlySet<string>): void {
    for (const id of this.#absences.keys()) if (!ids.has(id)) this.#absences.delete(id)
  }

  /**
   * Brings one row and what its host says of it (`undefined`: it does not have it) together. Leaves alone what an operation
   * works on.
   */
  async settle(row: CapsuleRow, capsule: Capsule | undefined): Promise<void> {
    if (capsule !== undefined) this.#absences.delete(row.id)
    // Its operation is at work, or will be taken over.
    if (isOnItsWay(row)) return
    if (row.stored_state !== null) {
      if (capsule !== undefined) await this.#settleStored(row, capsule)
      return
    }
    if (row.desired_state === 'stopped') await this.#settleUnwanted(row, capsule)
    else if (capsule === undefined) await this.#settleAbsent(row)
    else if (capsule.state === 'running') await this.#settleRunning(row, capsule)
    else if (capsule.state === 'paused') await this.#settlePaused(row, capsule)
    else if (capsule.state === 'error' || capsule.state === 'stopped') await this.#settleEnded(row, capsule)
  }

  /** What a host still has of it is freed by its list of that, unless the database is older than what the host has. */
  async #settleStored(row: CapsuleRow, seen: Capsule): Promise<void> {
    const capsule = await newerCopyOf(this.#deps, row, seen)
    if (capsule === undefined) {
      if (seen.state === 'running') this.#reportOnce(row.id, {}, 'capsule.runs_though_hibernated')
    } else if (capsule.state === 'running') await this.#settleRunning(row, capsule)
    else if (capsule.state === 'paused') await this.#settlePaused(row, capsule)
    else if (capsule.state === 'error' || capsule.state === 'stopped') await this.#settleEnded(row, capsule)
  }

  /** A capsule on the host of which the database knows nothing, or only that it is gone. */
  async settleForeign(row: CapsuleRow | undefined, capsule: Capsule): Promise<void> {
    const { capsuleId, state: hostState } = capsule
    if (row === undefined) this.#reportOnce(capsuleId, { hostState }, 'capsule.unknown_on_host')
    else if (this.isElsewhere(row)) this.#reportOnce(capsuleId, { hostState }, 'capsule.on_another_host')
    else if (row.state === 'stopped') await this.#destroyLeftover(capsuleId)
    else await this.settle(row, capsule)
  }

  /** Whether the capsule is one of another host: what this one says of it does not count. */
  isElsewhere({ host_id: hostId }: CapsuleRow): boolean {
    const joinedId = this.#deps.host?.joinedId
    return joinedId !== undefined && hostId !== null && hostId !== joinedId
  }

  #reportOnce(capsuleId: string, facts: object, event: string): void {
    if (this.#reported.has(`${event} ${capsuleId}`)) return
    this.#reported.add(`${event} ${capsuleId}`)
    this.#deps.logger.warn({ capsuleId, ...facts }, event)
  }

  async #settleUnwanted(row: CapsuleRow, capsule: Capsule | undefined): Promise<void> {
    const { db } = this.#deps
    if (await hasLiveOperation(db, row.id)) return
    if (capsule !== undefined) await this.#destroyLeftover(row.id)
    if (row.state === 'stopping') await writeDestroyed(db, row)
    else await recordObservation(db, [row.id], 'absent', new Date())
  }

  async #destroyLeftover(capsuleId: string): Promise<void> {
    this.#deps.logger.info({ capsuleId }, 'capsule.leftover_destroyed')
    if (this.#deps.host !== undefined) await destroyOnHost(this.#deps.host, capsuleId)
  }

  /** An answering host does not have it: missing at first, and lost for good when it does not turn up. */
  async #settleAbsent(row: CapsuleRow): Promise<void> {
    const { db, logger, lostGraceMs, lostBecause } = this.#deps
    if (row.state === 'error') {
      await recordObservation(db, [row.id], 'absent', new Date())
      return
    }
    const { sinceMs, comparisons } = this.#absences.get(row.id) ?? { sinceMs: performance.now(), comparisons: 0 }
    this.#absences.set(row.id, { sinceMs, comparisons: comparisons + 1 })
    if (row.state !== 'missing') {
      const patch = { observed_state: 'absent', observed_at: new Date() } as const
      const lost = await followHost(db, row, { command: 'lost', patch, action: 'capsule.missing', isBad: true })
      if (lost !== undefined) logger.warn({ capsuleId: row.id }, 'capsule.missing')
      return
    }
    await recordObservation(db, [row.id], 'absent', new Date())
    if (comparisons + 1 < COMPARISONS_UNTIL_LOST || performance.now() - sinceMs < lostGraceMs) return
    this.#absences.delete(row.id)
    const patch = { ...lostOnHost(lostBecause, row.fallback_state), disk_bytes: 0 }
    const ended = await followHost(db, row, { command: 'failed', patch, action: 'capsule.lost', isBad: true })
    if (ended !== undefined) logger.error({ capsuleId: row.id }, 'capsule.lost_on_host')
  }

  async #settleRunning(row: CapsuleRow, capsule: Capsule): Promise<void> {
    const { db, logger } = this.#deps
    if (row.state === 'missing' || row.state === 'hibernated') {
      const patch = {
        ...factsOf(capsule),
        ...this.#attach(row, capsule),
        desired_state: 'running',
        observed_state: 'running',
      } as const
      const found = await followHost(db, row, { command: 'found', patch, action: 'capsule.found', isBad: false })
      if (found !== undefined) logger.info({ capsuleId: row.id }, 'capsule.found')
    } else if (row.state === 'paused') {
      const patch = { ...factsOf(capsule), ...settledIn('running') }
      const adopted = await followHost(db, row, { command: 'started', patch, action: 'capsule.resume', isBad: false })
      if (adopted !== undefined) logger.warn({ capsuleId: row.id }, 'capsule.resumed_by_host')
    } else if (row.state === 'error') {
      this.#reportOnce(row.id, {}, 'capsule.runs_though_ended')
    } else await this.#refresh(row, capsule)
  }

  async #settlePaused(row: CapsuleRow, capsule: Capsule): Promise<void> {
    if (row.state === 'paused') {
      await this.#refresh(row, capsule)
      return
    }
    const { db, logger } = this.#deps
    const patch = { ...factsOf(capsule), ...this.#attach(row, capsule), ...settledIn('paused'), exit: null }
    const event = {
      command: 'paused',
      patch,
      action: row.state === 'hibernated' ? 'capsule.found' : 'capsule.pause',
      isBad: false,
      cause: capsule.pauseReason || 'host',
    } as const
    const paused = await followHost(db, row, event)
    if (paused !== undefined) {
      logger.info({ capsuleId: row.id, was: row.state, reason: capsule.pauseReason }, 'capsule.paused_by_host')
    }
  }

  async #settleEnded(row: CapsuleRow, capsule: Capsule): Promise<void> {
    const { db, logger } = this.#deps
    const exit = exitOf(capsule.exit)
    const patch = {
      ...savedFactsOf(capsule),
      ...this.#attach(row, capsule),
      exit: JSON.stringify(exit),
      observed_state: 'error',
      observed_at: new Date(),
      stopped_at: new Date(),
    } as const
    const event = { command: 'exited', patch, action: 'capsule.exit', isBad: true, cause: exit.cause } as const
    const ended = await followHost(db, row, event)
    if (ended !== undefined) logger.warn({ capsuleId: row.id, cause: exit.cause }, 'capsule.exited')
    else if (row.state === 'error') await this.#refresh(row, capsule)
  }

  /** What changes while the state stays: sizes, durability, notices. */
  async #refresh(row: CapsuleRow, capsule: Capsule): Promise<void> {
    const isOutlived =
      row.fallback_state !== null && capsule.loadedFrom === row.fallback_state && !capsule.loadedFromNeeded
    const outlived = isOutlived ? { fallback_state: null } : {}
    const facts = { ...savedFactsOf(capsule), ...this.#attach(row, capsule), ...outlived, observed_state: row.state }
    if (isSame(row, facts)) return
    await refreshCapsule(this.#deps.db, row, { ...facts, observed_at: new Date() })
  }

  #attach(row: CapsuleRow, { loadedFrom, loadedFromNeeded }: Capsule): CapsulePatch {
    const id = this.#deps.host?.id
    if (row.host_id !== null || id === undefined) return {}
    // What was in the store is older.
    const isNeeded = loadedFromNeeded && loadedFrom === row.stored_state
    return { host_id: id, stored_state: null, ...(isNeeded && { fallback_state: row.stored_state }) }
  }
}

/** States that an operation has put a capsule into and takes it out of. */
function isOnItsWay({ state }: CapsuleRow): boolean {
  return state === 'pending' || state === 'starting' || state === 'pausing' || state === 'resuming'
}

const LOST = 'Its host answers but has no such capsule any more, nor a saved state of it.'

/** @param fallback the state in the object store that it is from now on: it wakes wherever there is room */
function lostOnHost(because = LOST, fallback: string | null) {
  const message =
    fallback === null ? because : `${because} The state that it came from is in the object store: resume it.`
  const exit = { cause: 'lost_on_host', message, at: new Date().toISOString() }
  const stored = fallback === null ? {} : { stored_state: fallback, fallback_state: null, host_id: null }
  return { exit: JSON.stringify(exit), observed_state: 'absent' as const, stopped_at: new Date(), ...stored }
}

function isSame(row: CapsuleRow, facts: Readonly<Record<string, unknown>>): boolean {
  const own: Readonly<Record<string, unknown>> = { ...row }
  const plain = (value: unknown): unknown => (value instanceof Date ? value.getTime() : value)
  return Object.entries(facts).every(([key, value]) => plain(own[key]) === plain(value))
}
