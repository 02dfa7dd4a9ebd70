import { setTimeout as delay } from 'node:timers/promises'
import { errorText, type Logger } from '@wrenn/base'
import type { CapsuleState } from '@wrenn/protocol'
import type { Capsule } from '@wrenn/protocol/host'
import type { Limits } from '../../config.js'
import type { Host } from '../../host/host.js'
import { findAnyCapsule, listForReconcile, pruneEnded, pruneOperations } from '../../store/capsules.js'
import { hasVolatile } from '../../store/checkpoints.js'
import type { Db } from '../../store/database.js'
import { recordSilence, touchHost } from '../../store/hosts.js'
import { refreshPoolUsage, rememberHost } from '../hosts/index.js'
import { type Operations, truthOf } from '../operations/index.js'
import { SavedFiles, type Snapshots } from '../points/index.js'
import { followHost } from './follow-host.js'
import { Settler } from './settle.js'

const TICK_MS = 1_000
const COMPARE_EVERY_MS = 30_000
const LIST_TIMEOUT_MS = 20_000
/** So often what was heard is noted in the time after which a host counts as silent. */
const NOTES_PER_SILENCE = 4
const PRUNE_EVERY_MS = 10 * 60_000
/** Few enough to be quick; when there are more, the next tick goes on. */
const PRUNE_LIMIT = 500

/** States in which a capsule is at its host; when that is silent, nobody knows. */
const shownMissing: ReadonlySet<CapsuleState> = new Set(['running', 'pausing', 'paused', 'resuming'])

interface ReconcilerDeps {
  readonly db: Db
  readonly host: Host
  readonly operations: Operations
  readonly snapshots: Snapshots
  readonly logger: Logger
  readonly limits: Pick<Limits, 'quota'>
  /** Silence of the host after which its capsules count as missing. */
  readonly silentMs: number
  /** How long an answering host must be without a capsule before that counts as lost. */
  readonly lostGraceMs: number
  /** How long the rows of ended capsules are kept. */
  readonly retentionMs: number
  /** @default 1000 */
  readonly tickMs?: number
}

/**
 * The only place that compares what the database wants with what the host has, in both directions. It acts on what a host
 * says; silence only makes its capsules `missing`, and a capsule is destroyed on a host only when the database wants it gone.
 */
export class Reconciler {
  readonly #deps: ReconcilerDeps
  readonly #abort = new AbortController()
  readonly #settler: Settler
  readonly #savedFiles: SavedFiles
  /** This and the next three by the clock that is never set. */
  #heardAt = performance.now()
  #comparedAt = Number.NEGATIVE_INFINITY
  #prunedAt = Number.NEGATIVE_INFINITY
  #notedAt = Number.NEGATIVE_INFINITY
  #silent = false
  #done: Promise<unknown> = Promise.resolve()

  constructor(deps: ReconcilerDeps) {
    this.#deps = deps
    this.#settler = new Settler(deps)
    this.#savedFiles = new SavedFiles(deps)
  }

  start(): void {
    this.#heardAt = performance.now()
    this.#done = Promise.all([this.#repeat(() => this.#watch()), this.#repeat(() => this.#tick())])
  }

  /** Waits for what is under way; both loops end. */
  async stop(): Promise<void> {
    this.#abort.abort()
    await this.#done
  }

  /** One full comparison. */
  async compare(): Promise<void> {
    const { db, host } = this.#deps
    // Rows first: one that was running before the host listed its capsules and is not among them is really not there.
    const rows = await listForReconcile(db)
    const status = await host.status()
    // One that prepares its images answers this and refuses the rest: it is at work, its capsules are not missing.
    this.#heard()
    const { capsules } = await host.call((client) => client.listCapsules({}, { timeoutMs: LIST_TIMEOUT_MS }))
    this.#comparedAt = performance.now()
    await rememberHost(db, host, status)
    const onHost = new Map(capsules.map((capsule) => [capsule.capsuleId, capsule]))
    const known = new Set(rows.map((row) => row.id))
    this.#settler.expectOnly(known)
    for (const row of rows) await this.#settler.settle(row, onHost.get(row.id))
    for (const capsule of capsules) {
      if (known.has(capsule.capsuleId)) continue
      await this.#settler.settleForeign(await findAnyCapsule(db, capsule.capsuleId), capsule)
    }
    await this.#savedFiles.compare([...onHost.keys()])
    await refreshPoolUsage(this.#deps)
  }

  async #repeat(task: () => Promise<void>): Promise<void> {
    const { signal } = this.#abort
    while (!signal.aborted) {
      try {
        await task()
      } catch (error) {
        if (!signal.aborted) this.#deps.logger.debug({ error: errorText(error) }, 'reconcile.retry')
      }
      await delay(this.#deps.tickMs ?? TICK_MS, undefined, { signal }).catch(() => {})
    }
  }

  async #tick(): Promise<void> {
    const { operations, silentMs, lostGraceMs } = this.#deps
    await operations.resumeExpired()
    await this.#prune()
    await this.#noteHeard()
    const silence = performance.now() - this.#heardAt
    const compareEveryMs = this.#settler.hasAbsences ? lostGraceMs / 2 : COMPARE_EVERY_MS
    if (silence > silentMs) await this.#markSilent()
    else if (silence > silentMs / 2 || performance.now() - this.#comparedAt > compareEveryMs) await this.compare()
  }

  /** For other control planes, which may not hear of the host: it is down when none does. */
  async #noteHeard(): Promise<void> {
    const { db, host, silentMs } = this.#deps
    if (host.id === undefined || this.#heardAt - this.#notedAt < silentMs / NOTES_PER_SILENCE) return
    this.#notedAt = this.#heardAt
    await touchHost(db, host.id)
  }

  async #prune(): Promise<void> {
    if (performance.now() - this.#prunedAt < PRUNE_EVERY_MS) return
    const { db, logger, retentionMs } = this.#deps
    const count = await pruneEnded(db, retentionMs, PRUNE_LIMIT)
    if (count > 0) logger.info({ count }, 'capsules.pruned')
    const operations = await pruneOperations(db, retentionMs, PRUNE_LIMIT)
    if (count < PRUNE_LIMIT && operations < PRUNE_LIMIT) this.#prunedAt = performance.now()
  }

  async #watch(): Promise<void> {
    const stalled = new AbortController()
    const signal = AbortSignal.any([this.#abort.signal, stalled.signal])
    const watchdog = setInterval(() => {
      if (performance.now() - this.#heardAt > this.#deps.silentMs) stalled.abort()
    }, this.#deps.tickMs ?? TICK_MS)
    try {
      for await (const { event } of this.#deps.host.client.watchCapsules({}, { signal })) {
        this.#heard()
        if (event.case === 'capsule') await this.#changed(event.value)
        else if (event.case === 'synced' || event.case === 'removed') await this.compare()
      }
    } finally {
      clearInterval(watchdog)
    }
  }

  #heard(): void {
    this.#heardAt = performance.now()
    if (this.#silent) this.#deps.logger.info({ host: this.#deps.host.address }, 'host.answers_again')
    this.#silent = false
  }

  async #markSilent(): Promise<void> {
    const { db, host, logger, silentMs } = this.#deps
    if (!this.#silent) logger.warn({ host: host.address, silentMs: performance.now() - this.#heardAt }, 'host.silent')
    this.#silent = true
    await recordSilence(db, host.address, silentMs)
    for (const row of await listForReconcile(db)) {
      if (!shownMissing.has(row.state)) continue
      const patch = { observed_state: 'silent', observed_at: new Date() } as const
      await followHost(db, row, { command: 'lost', patch, action: 'capsule.missing', isBad: true })
    }
  }

  /** Whoever else moves the row meanwhile makes settling a no-op, and nothing says it again: then all of it is done anew. */
  async #changed(capsule: Capsule): Promise<void> {
    const { db, host } = this.#deps
    const { capsuleId } = capsule
    let row = await findAnyCapsule(db, capsuleId)
    for (let pass = 0; row !== undefined && row.state !== 'stopped'; pass++) {
      // An event may be older than the row: where they differ, the host is asked again, after the row was read.
      const isFresh = pass === 0 && row.state === capsule.state
      const truth = isFresh ? capsule : await truthOf(host, capsuleId)
      await this.#settler.settle(row, truth)
      if (truth === undefined) return // an absence is looked at again by the comparisons, which count it
      const after = await findAnyCapsule(db, capsuleId)
      if (after?.generation === row.generation) {
        if (await hasVolatile(db, capsuleId)) await this.#savedFiles.compareCheckpoints(capsuleId)
        return
      }
      row = after
    }
    await this.#settler.settleForeign(row, capsule)
  }
}
