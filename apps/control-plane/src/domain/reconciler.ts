import { setTimeout as delay } from 'node:timers/promises'
import { errorText, type Logger } from '@wrenn/base'
import type { Capsule } from '@wrenn/protocol/host'
import type { Host } from '../host/host.js'
import { findAnyCapsule, listForReconcile, pruneEnded, recordObservation, transition } from '../store/capsules.js'
import type { Db } from '../store/database.js'
import { recordHost } from '../store/hosts.js'
import { hasLiveOperation } from '../store/operations.js'
import type { CapsuleRow } from '../store/schema.js'
import { exitOf, factsOf } from './host-facts.js'
import type { Operations } from './operations.js'

const TICK_MS = 1_000
const COMPARE_EVERY_MS = 30_000
const LIST_TIMEOUT_MS = 20_000
const PRUNE_EVERY_MS = 10 * 60_000
/** Few enough to be quick; when there are more, the next tick goes on. */
const PRUNE_LIMIT = 500

export interface ReconcilerDeps {
  readonly db: Db
  readonly host: Host
  readonly operations: Operations
  readonly logger: Logger
  /** Silence of the host after which its capsules count as missing. */
  readonly silentMs: number
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
  readonly #reported = new Set<string>()
  #heardAt = Date.now()
  #comparedAt = 0
  #prunedAt = 0
  #silent = false
  #done: Promise<unknown> = Promise.resolve()

  constructor(deps: ReconcilerDeps) {
    this.#deps = deps
  }

  start(): void {
    this.#heardAt = Date.now()
    this.#done = Promise.all([this.#repeat(() => this.#watch()), this.#repeat(() => this.#tick())])
  }

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
    const { capsules } = await host.call((client) => client.listCapsules({}, { timeoutMs: LIST_TIMEOUT_MS }))
    this.#heard()
    this.#comparedAt = Date.now()
    await recordHost(db, {
      id: status.hostId,
      address: host.address,
      agentVersion: status.agentVersion,
      engine: status.engine,
    })
    const onHost = new Map(capsules.map((capsule) => [capsule.capsuleId, capsule]))
    for (const row of rows) await this.#settle(row, onHost.get(row.id), status.hostId)
    const known = new Set(rows.map((row) => row.id))
    for (const capsule of capsules) if (!known.has(capsule.capsuleId)) await this.#foreign(capsule, status.hostId)
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
    const { operations, silentMs } = this.#deps
    await operations.resumeExpired()
    await this.#prune()
    const silence = Date.now() - this.#heardAt
    if (silence > silentMs) await this.#markSilent()
    else if (silence > silentMs / 2 || Date.now() - this.#comparedAt > COMPARE_EVERY_MS) await this.compare()
  }

  async #prune(): Promise<void> {
    if (Date.now() - this.#prunedAt < PRUNE_EVERY_MS) return
    const { db, logger, retentionMs } = this.#deps
    const count = await pruneEnded(db, retentionMs, PRUNE_LIMIT)
    if (count > 0) logger.info({ count }, 'capsules.pruned')
    if (count < PRUNE_LIMIT) this.#prunedAt = Date.now()
  }

  async #watch(): Promise<void> {
    const stalled = new AbortController()
    const signal = AbortSignal.any([this.#abort.signal, stalled.signal])
    const watchdog = setInterval(() => {
      if (Date.now() - this.#heardAt > this.#deps.silentMs) stalled.abort()
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
    this.#heardAt = Date.now()
    if (this.#silent) this.#deps.logger.info({ host: this.#deps.host.address }, 'host.answers_again')
    this.#silent = false
  }

  async #markSilent(): Promise<void> {
    const { db, host, logger } = this.#deps
    if (!this.#silent) logger.warn({ host: host.address, silentMs: Date.now() - this.#heardAt }, 'host.silent')
    this.#silent = true
    for (const row of await listForReconcile(db)) {
      if (row.state !== 'running' && row.state !== 'pausing' && row.state !== 'resuming') continue
      await transition(db, row, 'lost', { observed_state: 'silent', observed_at: new Date() })
    }
  }

  async #changed(capsule: Capsule): Promise<void> {
    const row = await findAnyCapsule(this.#deps.db, capsule.capsuleId)
    if (row === undefined || row.state === 'stopped') await this.#foreign(capsule, row?.host_id ?? undefined)
    else await this.#settle(row, capsule, row.host_id ?? undefined)
  }

  /** A capsule on the host that the database does not expect there. */
  async #foreign(capsule: Capsule, hostId: string | undefined): Promise<void> {
    const { db, logger } = this.#deps
    const row = await findAnyCapsule(db, capsule.capsuleId)
    if (row === undefined) {
      if (this.#reported.has(capsule.capsuleId)) return
      this.#reported.add(capsule.capsuleId)
      logger.warn({ capsuleId: capsule.capsuleId, hostState: capsule.state }, 'capsule.unknown_on_host')
    } else if (row.state === 'stopped') {
      await this.#destroyLeftover(capsule.capsuleId)
    } else {
      await this.#settle(row, capsule, hostId)
    }
  }

  async #settle(row: CapsuleRow, capsule: Capsule | undefined, hostId: string | undefined): Promise<void> {
    if (row.state === 'pending' || row.state === 'starting') return // its operation is at work, or will be resumed
    const attach = hostId !== undefined && row.host_id === null && capsule !== undefined ? { host_id: hostId } : {}
    if (row.desired_state === 'stopped') await this.#settleUnwanted(row, capsule)
    else if (capsule === undefined) await this.#settleAbsent(row)
    else if (capsule.state === 'running') await this.#settleRunning(row, capsule, attach)
    else if (capsule.state === 'error' || capsule.state === 'stopped') await this.#settleEnded(row, capsule, attach)
  }

  async #settleUnwanted(row: CapsuleRow, capsule: Capsule | undefined): Promise<void> {
    const { db } = this.#deps
    if (await hasLiveOperation(db, row.id)) return
    if (capsule !== undefined) await this.#destroyLeftover(row.id)
    if (row.state === 'stopping') {
      await transition(db, row, 'destroyed', { observed_state: 'absent', stopped_at: new Date() })
    } else {
      await recordObservation(db, [row.id], 'absent', new Date())
    }
  }

  async #settleAbsent(row: CapsuleRow): Promise<void> {
    const seen = { observed_state: 'absent', observed_at: new Date() } as const
    if (row.state !== 'missing') {
      const lost = await transition(this.#deps.db, row, 'lost', seen)
      if (lost !== undefined) this.#deps.logger.warn({ capsuleId: row.id }, 'capsule.missing')
    }
    await recordObservation(this.#deps.db, [row.id], 'absent', seen.observed_at)
  }

  async #settleRunning(row: CapsuleRow, capsule: Capsule, attach: { host_id?: string }): Promise<void> {
    const { db, logger } = this.#deps
    if (row.state === 'missing') {
      const found = await transition(db, row, 'found', { ...factsOf(capsule), ...attach, observed_state: 'running' })
      if (found !== undefined) logger.info({ capsuleId: row.id }, 'capsule.found')
    } else if (attach.host_id !== undefined || row.observed_state !== 'running') {
      await db
        .updateTable('capsules')
        .set({ ...attach, observed_state: 'running', observed_at: new Date() })
        .where('id', '=', row.id)
        .execute()
    }
  }

  async #settleEnded(row: CapsuleRow, capsule: Capsule, attach: { host_id?: string }): Promise<void> {
    const { db, logger } = this.#deps
    const exit = exitOf(capsule.exit)
    const ended = await transition(db, row, 'exited', {
      ...attach,
      exit: JSON.stringify(exit),
      observed_state: 'error',
      observed_at: new Date(),
      stopped_at: new Date(),
    })
    if (ended !== undefined) logger.warn({ capsuleId: row.id, cause: exit.cause }, 'capsule.exited')
  }

  async #destroyLeftover(capsuleId: string): Promise<void> {
    this.#deps.logger.info({ capsuleId }, 'capsule.leftover_destroyed')
    await this.#deps.host.call((client) => client.destroyCapsule({ capsuleId }, { timeoutMs: LIST_TIMEOUT_MS }))
  }
}
