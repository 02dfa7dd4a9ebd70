import { errorText, type Logger } from '@wrenn/base'
import type { Limits } from '../../config.js'
import type { HostCopy, Hosts } from '../../host/hosts.js'
import { listOfNoHost, listOfOtherHosts, placeUnplaced, pruneEnded, pruneOperations } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import { goneAmong, heardAmong } from '../../store/hosts.js'
import type { CapsuleRow } from '../../store/schema.js'
import type { Operations } from '../operations/index.js'
import { PerHost } from '../per-host.js'
import type { Snapshots } from '../points/index.js'
import { Rounds } from '../rounds.js'
import { LeftoverRounds } from '../stored/index.js'
import { markMissing } from './follow-host.js'
import { HostReconciler } from './host-reconciler.js'
import { Settler } from './settle.js'

const TICK_MS = 1_000
const FREE_EVERY_TICKS = 5
const PRUNE_EVERY_MS = 10 * 60_000
/** Few enough to be quick; when there are more, the next tick goes on. */
const PRUNE_LIMIT = 500
/** Each is asked for at all hosts. */
const UNPLACED_LIMIT = 20
const NOWHERE = 'It was recorded before its host was known, and no host of the platform has it.'

interface ReconcilerDeps {
  readonly db: Db
  readonly host: Hosts
  readonly operations: Operations
  readonly snapshots: Snapshots
  readonly logger: Logger
  readonly limits: Pick<Limits, 'quota'>
  /** Silence of a host after which its capsules count as missing. */
  readonly silentMs: number
  /** How long an answering host must be without a capsule before that counts as lost. */
  readonly lostGraceMs: number
  /** How long the rows of ended capsules are kept. */
  readonly retentionMs: number
  /** @default 1000 */
  readonly tickMs?: number
}

/** Has every host compared with the database, each for itself, and sees to what is no host's: expired operations, old rows, capsules of hosts that are no more. */
export class Reconciler {
  readonly #deps: ReconcilerDeps
  readonly #hosts: PerHost
  readonly #rounds: Rounds
  readonly #leftovers: LeftoverRounds
  /** Of hosts that were removed: nothing of theirs is anywhere. */
  readonly #settler: Settler
  /** Of capsules that no host has. */
  readonly #unplaced: Settler
  /** Of capsules of which nobody knows where they are, since when, by the clock that is never set. */
  readonly #unplacedSince = new Map<string, number>()
  /** Since when nobody here calls a host, by the clock that is never set. */
  readonly #uncalled = new Map<string, number>()
  #prunedAt = Number.NEGATIVE_INFINITY
  #strayAt = Number.NEGATIVE_INFINITY

  constructor(deps: ReconcilerDeps) {
    this.#deps = deps
    const { host: hosts, logger, tickMs = TICK_MS } = deps
    const isOnly = (): boolean => hosts.all.length === 1
    const copiesOf = async (id: string): Promise<readonly HostCopy[]> => await hosts.copiesOf(id)
    this.#hosts = new PerHost(hosts, (host) => new HostReconciler({ ...deps, host, isOnly, copiesOf }))
    const lostBecause = 'Its host was removed from the platform, with all that was on it.'
    this.#settler = new Settler({ ...deps, host: undefined, copiesOf, lostBecause })
    this.#unplaced = new Settler({ ...deps, host: undefined, copiesOf, lostBecause: NOWHERE })
    const onFailure = (error: unknown): void => logger.debug({ error: errorText(error) }, 'reconcile.retry')
    this.#rounds = new Rounds(() => this.#tick(), tickMs, onFailure)
    this.#leftovers = new LeftoverRounds({ db: deps.db, hosts, logger, everyMs: FREE_EVERY_TICKS * tickMs })
  }

  start(): void {
    this.#hosts.start()
    this.#rounds.start()
    this.#leftovers.start()
  }

  /** Waits for what is under way. */
  async stop(): Promise<void> {
    await Promise.all([this.#hosts.stop(), this.#rounds.stop(), this.#leftovers.stop()])
  }

  async #tick(): Promise<void> {
    await this.#deps.operations.resumeExpired()
    await this.#prune()
    await this.#settleStrays()
  }

  async #prune(): Promise<void> {
    if (performance.now() - this.#prunedAt < PRUNE_EVERY_MS) return
    const { db, logger, retentionMs } = this.#deps
    const count = await pruneEnded(db, retentionMs, PRUNE_LIMIT)
    if (count > 0) logger.info({ count }, 'capsules.pruned')
    const operations = await pruneOperations(db, retentionMs, PRUNE_LIMIT)
    if (count < PRUNE_LIMIT && operations < PRUNE_LIMIT) this.#prunedAt = performance.now()
  }

  /** Capsules of hosts that nobody here calls: of one that was removed they are lost, of one that no other control plane hears either, missing. */
  async #settleStrays(): Promise<void> {
    const { db, host: hosts, silentMs, lostGraceMs } = this.#deps
    if (hosts.only !== undefined) return
    const everyMs = Math.min(lostGraceMs, silentMs) / 2
    if (performance.now() - this.#strayAt < everyMs) return
    this.#strayAt = performance.now()
    const called = hosts.all.flatMap(({ joinedId }) => joinedId ?? [])
    await this.#settleUnplaced()
    const rows = await listOfOtherHosts(db, called)
    const others = new Set(rows.flatMap(({ host_id: id }) => id ?? []))
    for (const id of this.#uncalled.keys()) if (!others.has(id)) this.#uncalled.delete(id)
    const gone = await goneAmong(db, [...others])
    const heard = await heardAmong(db, [...others], silentMs)
    this.#settler.expectOnly(new Set(rows.map(({ id }) => id)))
    for (const row of rows) {
      if (gone.has(row.host_id ?? '')) await this.#settler.settle(row, undefined)
      else if (this.#isUncalledForLong(row) && !heard.has(row.host_id ?? '')) await markMissing(db, row)
    }
  }

  /**
   * Capsules that were recorded before their host had said which one it is, as the platform's own alone can: none of several compares them. They are
   * where a host says that it has them; what none has is lost, and what nobody can say of for long is missing.
   */
  async #settleUnplaced(): Promise<void> {
    const { db, host: hosts, silentMs, logger } = this.#deps
    const rows = hosts.all.length > 1 ? await listOfNoHost(db, UNPLACED_LIMIT) : []
    const ids = new Set(rows.map(({ id }) => id))
    this.#unplaced.expectOnly(ids)
    for (const id of this.#unplacedSince.keys()) if (!ids.has(id)) this.#unplacedSince.delete(id)
    for (const row of rows) {
      const since = this.#unplacedSince.get(row.id) ?? performance.now()
      this.#unplacedSince.set(row.id, since)
      try {
        const host = await hosts.whoHas(row.id)
        if (host?.joinedId === undefined) await this.#unplaced.settle(row, undefined)
        else await placeUnplaced(db, row.id, host.joinedId)
      } catch (error) {
        logger.debug({ capsuleId: row.id, error: errorText(error) }, 'capsule.host_unknown')
        if (performance.now() - since > silentMs) await markMissing(db, row)
      }
    }
  }

  /** One that has just joined may be known to another control plane first. */
  #isUncalledForLong({ host_id: hostId }: CapsuleRow): boolean {
    if (hostId === null) return false
    const since = this.#uncalled.get(hostId) ?? performance.now()
    this.#uncalled.set(hostId, since)
    return performance.now() - since > this.#deps.silentMs
  }
}
