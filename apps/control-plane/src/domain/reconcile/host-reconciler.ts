import { setTimeout as delay } from 'node:timers/promises'
import { errorText, type Logger } from '@wrenn/base'
import type { Capsule } from '@wrenn/protocol/host'
import type { Limits } from '../../config.js'
import type { Host } from '../../host/host.js'
import type { HostCopy } from '../../host/hosts.js'
import { findAnyCapsule, listForReconcile } from '../../store/capsules.js'
import { hasVolatile } from '../../store/checkpoints.js'
import type { Db } from '../../store/database.js'
import { heardAmong, recordSilence, touchHost } from '../../store/hosts.js'
import type { CapsuleRow } from '../../store/schema.js'
import { refreshPoolUsage, rememberHost } from '../hosts/index.js'
import { truthOf } from '../operations/index.js'
import { SavedFiles, type Snapshots } from '../points/index.js'
import { markMissing } from './follow-host.js'
import { Settler } from './settle.js'

const TICK_MS = 1_000
const COMPARE_EVERY_MS = 30_000
const LIST_TIMEOUT_MS = 20_000
/** So often what was heard is noted in the time after which a host counts as silent. */
const NOTES_PER_SILENCE = 4

interface HostReconcilerDeps {
  readonly db: Db
  readonly host: Host
  /** Whether there is no other host now. */
  readonly isOnly: () => boolean
  /** What all hosts have of a capsule. @throws AppError `host_unavailable` while one of them does not answer */
  readonly copiesOf: (capsuleId: string) => Promise<readonly HostCopy[]>
  readonly snapshots: Snapshots
  readonly logger: Logger
  readonly limits: Pick<Limits, 'quota'>
  /** Silence of the host after which its capsules count as missing. */
  readonly silentMs: number
  /** How long an answering host must be without a capsule before that counts as lost. */
  readonly lostGraceMs: number
  /** @default 1000 */
  readonly tickMs?: number
}

/**
 * The only place that compares what the database wants with what a host has, in both directions. It acts on what the host
 * says; silence only makes its capsules `missing`, and a capsule is destroyed on it only when the database wants that gone.
 */
export class HostReconciler {
  readonly #deps: HostReconcilerDeps
  readonly #abort = new AbortController()
  readonly #settler: Settler
  readonly #savedFiles: SavedFiles
  /** This and the next two by the clock that is never set. */
  #heardAt = performance.now()
  #comparedAt = Number.NEGATIVE_INFINITY
  #notedAt = Number.NEGATIVE_INFINITY
  /** Not the same for all, or thousands of hosts that were heard of together would always be compared together. */
  readonly #compareEveryMs = COMPARE_EVERY_MS * (0.8 + Math.random() * 0.2)
  #done: Promise<unknown> = Promise.resolve()

  constructor(deps: HostReconcilerDeps) {
    this.#deps = deps
    this.#settler = new Settler(deps)
    this.#savedFiles = new SavedFiles(deps)
  }

  start(): void {
    this.#heardAt = performance.now()
    this.#done = Promise.all([this.#repeat(() => this.#watch()), this.#repeat(() => this.#tick())])
  }

  /** Waits for what is under way; all loops end. */
  async stop(): Promise<void> {
    this.#abort.abort()
    await this.#done
  }

  /** One full comparison. */
  async compare(): Promise<void> {
    const { db, host } = this.#deps
    // Rows first: one that was running before the host listed its capsules and is not among them is really not there.
    const rows = await this.#rows()
    const status = await host.status()
    // One that prepares its images answers this and refuses the rest: it is at work, its capsules are not missing.
    this.#heard()
    const { capsules } = await host.call((client) => client.listCapsules({}, { timeoutMs: LIST_TIMEOUT_MS }))
    this.#comparedAt = performance.now()
    await host.templates()
    await rememberHost(db, host, status)
    const onHost = new Map(capsules.map((capsule) => [capsule.capsuleId, capsule]))
    const known = new Set(rows.map((row) => row.id))
    this.#settler.expectOnly(known)
    for (const row of rows) await this.#settler.settle(row, onHost.get(row.id))
    for (const capsule of capsules) {
      const { capsuleId } = capsule
      if (known.has(capsuleId)) continue
      const row = await findAnyCapsule(db, capsuleId)
      await this.#settler.settleForeign(row, capsule)
      if (row !== undefined && this.#settler.isElsewhere(row)) onHost.delete(capsuleId)
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
    const { silentMs, lostGraceMs } = this.#deps
    await this.#noteHeard()
    const silence = performance.now() - this.#heardAt
    const compareEveryMs = this.#settler.hasAbsences ? lostGraceMs / 2 : this.#compareEveryMs
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

  async #watch(): Promise<void> {
    const stalled = new AbortController()
    const signal = AbortSignal.any([this.#abort.signal, stalled.signal])
    // A stream has the whole time to begin, or one that comes after a silence would never be waited for.
    const startedAt = performance.now()
    const watchdog = setInterval(() => {
      if (performance.now() - Math.max(this.#heardAt, startedAt) > this.#deps.silentMs) stalled.abort()
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

  /** Of the capsules that this host should have. */
  async #rows(): Promise<CapsuleRow[]> {
    const { db, host, isOnly } = this.#deps
    const { joinedId } = host
    return await listForReconcile(db, joinedId === undefined ? undefined : { hostId: joinedId, orNone: isOnly() })
  }

  #heard(): void {
    const { host, logger } = this.#deps
    this.#heardAt = performance.now()
    if (host.isSilent) logger.info({ host: host.address }, 'host.answers_again')
    host.isSilent = false
  }

  async #markSilent(): Promise<void> {
    const { db, host, logger, silentMs } = this.#deps
    if (!host.isSilent) logger.warn({ host: host.address, silentMs: performance.now() - this.#heardAt }, 'host.silent')
    host.isSilent = true
    await recordSilence(db, host, silentMs)
    const { joinedId } = host
    // Another control plane, to which the way is open, goes on with what is there.
    if (joinedId !== undefined && (await heardAmong(db, [joinedId], silentMs)).has(joinedId)) return
    for (const row of await this.#rows()) await markMissing(db, row)
  }

  /** Whoever else moves the row meanwhile makes settling a no-op, and nothing says it again: then all of it is done anew. */
  async #changed(capsule: Capsule): Promise<void> {
    const { db, host } = this.#deps
    const { capsuleId } = capsule
    let row = await findAnyCapsule(db, capsuleId)
    if (row !== undefined && this.#settler.isElsewhere(row)) return await this.#settler.settleForeign(row, capsule)
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
