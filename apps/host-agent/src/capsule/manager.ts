import { availableParallelism } from 'node:os'
import { AppError, type Logger, noSteps, noTracer, type ReachStep, type Tracer, waitFor } from '@wrenn/base'
import type { PauseReason } from '@wrenn/protocol'
import type { Learned } from '../host/names/index.js'
import { type Context, dirs, release, requireMade } from './context.js'
import { ActivityTracker } from './guest/activity.js'
import { guestError, isCutLine, isNoAnswer } from './guest/error.js'
import type { Guest, GuestFactory } from './guest/guest.js'
import type { WatchOptions } from './guest/pulse.js'
import { ShortCalls } from './guest/short-calls.js'
import type { Journal } from './journal.js'
import { Creator } from './lifecycle/creator.js'
import { Egress } from './lifecycle/egress.js'
import { Fork, type ForkCopy, type ForkResult } from './lifecycle/fork.js'
import {
  type FetchedState,
  type FetchWish,
  Hibernation,
  type StateRef,
  type StoredState,
} from './lifecycle/hibernation.js'
import { Points } from './lifecycle/points.js'
import { Recovery } from './lifecycle/recovery.js'
import { Sleep } from './lifecycle/sleep.js'
import { Snapshots } from './lifecycle/snapshots.js'
import type { Machine } from './machine.js'
import { Admission } from './pool/admission.js'
import type { HotPool } from './pool/hot-pool.js'
import type { Shape, ShapeSnapshot, ShapeStore } from './pool/shapes.js'
import { Flusher, type MakeDurable } from './state/flusher.js'
import { holdingsOf } from './state/holdings.js'
import { Sizes, type TeamUsage } from './state/sizes.js'
import { layersOfStates, StateStore, type VerifyFiles } from './state/states.js'
import type { OpenVault } from './state/vault.js'
import { type CapsuleEvent, CapsuleTable, type Entry } from './table.js'
import type { CapsuleRecord, CreateCapsuleInput, EgressPolicy, FromDisk, Refusal } from './types.js'

export type { CapsuleEvent } from './table.js'

/** Smaller changes are not worth a record. */
const DISK_BYTES_STEP = 2 ** 20
/** From the cut of a guest's connections to the host's record of its end, on a busy machine. */
const END_NOTICE_MS = 1_000

/** What the manager works with; `serve.ts` wires the real ones, tests a fake machine. */
export interface ManagerDeps {
  readonly machine: Machine
  readonly journal: Journal
  readonly factory: GuestFactory
  readonly shapes: ShapeStore
  readonly hotPool: HotPool
  readonly logger: Logger
  /** Boot of this host. */
  readonly bootId: string
  readonly makeDurable: MakeDurable
  readonly verifyFiles: VerifyFiles
  /** @default there is no object store */
  readonly openVault?: OpenVault | undefined
  /** Called at each step with its name, where tests break the process off. @default does nothing */
  readonly reach?: ReachStep
  /** @default makes no spans */
  readonly tracer?: Tracer
}

/** Owns the capsules of this host. One command at a time per capsule; the journal is written before each step counts. */
export class CapsuleManager {
  readonly activity: ActivityTracker
  readonly points: Points
  readonly snapshots: Snapshots
  readonly calls = new ShortCalls()
  readonly #context: Context
  readonly #journal: Journal
  readonly #table: CapsuleTable
  readonly #creator: Creator
  readonly #sleep: Sleep
  readonly #fork: Fork
  readonly #egress: Egress
  readonly #hibernation: Hibernation
  #creating = 0

  constructor(deps: ManagerDeps) {
    const { machine, factory, shapes, hotPool, logger, bootId, reach = noSteps, tracer = noTracer } = deps
    const states = new StateStore(machine)
    const flusher = new Flusher(states, deps.makeDurable, logger)
    this.#journal = deps.journal
    this.#table = new CapsuleTable(deps.journal, logger)
    const sizes = new Sizes(machine, states, () => holdingsOf({ table: this.#table, states }), logger)
    this.#context = {
      machine,
      factory,
      shapes,
      hotPool,
      logger,
      tracer,
      bootId,
      reach,
      states,
      flusher,
      verifyFiles: deps.verifyFiles,
      sizes,
      calls: this.calls,
      table: this.#table,
    }
    const admission = new Admission(Math.max(2, availableParallelism()))
    this.activity = new ActivityTracker(this.#table)
    this.snapshots = new Snapshots(this.#context)
    this.#sleep = new Sleep(this.#context)
    this.points = new Points(this.#context, (entry) => this.#sleep.flush(entry))
    this.#creator = new Creator(this.#context, admission, this.snapshots)
    this.#fork = new Fork(this.#context, admission)
    this.#egress = new Egress(this.#context)
    this.#hibernation = new Hibernation(this.#context, this.#sleep, deps.openVault ?? noVault)
  }

  /** Creates under way; the hot pool waits for 0. */
  get creating(): number {
    return this.#creating
  }

  /** For what works on the same capsules beside the manager. */
  get context(): Context {
    return this.#context
  }

  list(): CapsuleRecord[] {
    return this.#table.list()
  }

  get(capsuleId: string): CapsuleRecord | undefined {
    return this.#table.find(capsuleId)?.record
  }

  /** Calls `listener` for every change from now on; returns how to stop. */
  watch(listener: (event: CapsuleEvent) => void): () => void {
    return this.#table.watch(listener)
  }

  /** Why a capsule cannot answer, when it cannot. */
  whyGone(capsuleId: string): AppError | undefined {
    return this.#table.whyGone(capsuleId)
  }

  /**
   * What to tell whose call to a guest failed: why the capsule cannot answer, when it cannot, whatever the connection looked like.
   * A guest that ends cuts its connections a moment before its host hears of it, so a cut line is given that moment.
   */
  async explain(capsuleId: string, thrown: unknown): Promise<AppError> {
    const failure = guestError(thrown)
    if (!isNoAnswer(failure)) return failure
    const gone = (): AppError | undefined => this.whyGone(capsuleId)
    if (!isCutLine(failure)) return gone() ?? failure
    return await waitFor(gone, { timeoutMs: END_NOTICE_MS, what: 'the end of the guest' }).catch(() => failure)
  }

  /** How often its running guest was rolled back; only good for comparing. */
  rollbacks(capsuleId: string): number {
    return this.#table.find(capsuleId)?.rollbacks ?? 0
  }

  /**
   * The line to a running capsule's guest, once it knows the time after a resume.
   * @throws AppError `capsule_not_found`, `guest_died`, `invalid_state`, `guest_unreachable`
   */
  async running(capsuleId: string, patience: WatchOptions = {}): Promise<Guest> {
    const gone = this.whyGone(capsuleId)
    if (gone !== undefined) throw gone
    this.activity.touch(capsuleId)
    const { guest: waking, revival } = this.#table.find(capsuleId) ?? {}
    if (revival !== undefined) await waking?.client.pulse.guard(() => revival, patience)
    const guest = this.#table.find(capsuleId)?.guest
    if (guest !== undefined) return guest
    throw this.whyGone(capsuleId) ?? new AppError('invalid_state', 'The capsule has no running guest.')
  }

  /** Idempotent by capsule id. @throws AppError `template_not_found`, `guest_died`, `conflict`, `engine_failure`, `disk_full`, … */
  async create(input: CreateCapsuleInput): Promise<CapsuleRecord> {
    return await this.#table.exclusive(input.capsuleId, async () => {
      const existing = this.get(input.capsuleId)
      if (existing !== undefined) return requireMade(existing)
      const { snapshotId, isVerified = false } = input
      // Reading gigabytes is no reason for the hot pool to wait.
      if (isVerified && snapshotId !== undefined) await this.snapshots.verify(snapshotId)
      return await this.#counted(() => this.#creator.create(input))
    })
  }

  /** @see Sleep.pause */
  async pause(capsuleId: string, reason: PauseReason): Promise<CapsuleRecord> {
    return await this.#sleep.pause(capsuleId, reason)
  }

  /** @see Sleep.resume */
  async resume(capsuleId: string, fromDisk?: FromDisk): Promise<CapsuleRecord> {
    return await this.#counted(() => this.#sleep.resume(capsuleId, fromDisk))
  }

  /** @see Fork.run */
  async fork(capsuleId: string, copies: readonly ForkCopy[], checkpointId?: string): Promise<ForkResult> {
    return await this.#counted(() => this.#fork.run(capsuleId, copies, checkpointId))
  }

  /** @see Egress.set */
  async setEgress(capsuleId: string, policy: EgressPolicy, revision: number): Promise<CapsuleRecord> {
    return await this.#egress.set(capsuleId, policy, revision)
  }

  /** @see Egress.refusals */
  async refusals(capsuleId: string): Promise<readonly Refusal[]> {
    return await this.#egress.refusals(capsuleId)
  }

  /** @see Egress.learned */
  async learned(capsuleId: string): Promise<Learned> {
    return await this.#egress.learned(capsuleId)
  }

  /** Ends and removes a capsule with all its files and checkpoints. False when there was none. */
  async destroy(capsuleId: string): Promise<boolean> {
    this.#hibernation.giveUp(capsuleId)
    return await this.#table.exclusive(capsuleId, async () => {
      const entry = this.#table.find(capsuleId)
      if (entry === undefined) return false
      await this.#destroy(entry)
      this.#context.logger.info({ capsuleId }, 'capsule.destroyed')
      return true
    })
  }

  /** @see Hibernation.store */
  async store(ref: StateRef, knownLayers: readonly string[], signal: AbortSignal): Promise<StoredState> {
    return await this.#hibernation.store(ref, knownLayers, signal)
  }

  /** @see Hibernation.fetch */
  async fetch(ref: StateRef, wish: FetchWish, signal: AbortSignal): Promise<FetchedState> {
    return await this.#hibernation.fetch(ref, wish, signal)
  }

  /** Removes a capsule that is exactly what was stored as this state, or fetched by this attempt. False when there is none of that. */
  async free(capsuleId: string, stateId: string, attempt: number): Promise<boolean> {
    const { reach, logger } = this.#context
    return await this.#table.exclusive(capsuleId, async () => {
      const entry = this.#table.find(capsuleId)
      if (entry === undefined || !(await this.#hibernation.isStoredAs(entry, stateId, attempt))) return false
      reach('free:begun')
      await this.#destroy(entry)
      logger.info({ capsuleId, stateId }, 'capsule.freed')
      return true
    })
  }

  async #destroy(entry: Entry): Promise<void> {
    const { factory, flusher, sizes, reach } = this.#context
    const { capsuleId } = entry.record
    await this.#table.move(entry, 'destroy')
    reach('destroy:begun')
    flusher.cancelBelow(`capsules/${capsuleId}/`)
    // A guest that waits for memory that does not come cannot be ended before that is over.
    await release(entry, this.#context, { first: () => factory.dropMemory(capsuleId) })
    reach('destroy:released')
    const { resources } = entry.record
    if (resources !== undefined && resources.vmId !== capsuleId) await factory.removeFiles(resources.vmId)
    await factory.removeFiles(capsuleId)
    reach('destroy:removed')
    sizes.forgetCapsule(capsuleId)
    await this.#table.remove(entry)
  }

  /** Takes up what the journal says was there. */
  async adopt(records: readonly CapsuleRecord[]): Promise<void> {
    const recovery = new Recovery(this.#context, this.#sleep, (capsuleId) => this.destroy(capsuleId))
    await recovery.adopt(records)
    await this.snapshots.takeUp()
  }

  /** Leaves every guest running and drops the lines to them. */
  async detach(): Promise<void> {
    await this.#context.flusher.close()
    for (const entry of this.#table.entries()) {
      await entry.teardown
      const { guest } = entry
      entry.guest = undefined // so that nothing that happens from here on is taken for the guest's end
      await this.#table.settle(entry, {})
      guest?.client.close()
      await guest?.vm.detach()
    }
  }

  /** Ends every capsule of this host, its files included. */
  async destroyAll(): Promise<void> {
    await Promise.all(this.#table.list().map(({ capsuleId }) => this.destroy(capsuleId)))
  }

  /** Measures what every capsule takes of the pool and records what has changed; for the background. */
  async measure(signal?: AbortSignal): Promise<void> {
    const { sizes } = this.#context
    await sizes.measureAll(signal)
    for (const entry of this.#table.entries()) {
      const { capsuleId, diskBytes = 0 } = entry.record
      const bytes = sizes.family(capsuleId)
      if (bytes === undefined || Math.abs(bytes - diskBytes) < DISK_BYTES_STEP) continue
      await this.#table.store(entry, { diskBytes: bytes })
    }
  }

  /** @see Sizes.usage */
  async usage(): Promise<TeamUsage[] | undefined> {
    return await this.#context.sizes.usage()
  }

  /** Boots, warms and saves a shape that has no snapshot yet, without making a capsule. */
  async prepareShape(shape: Shape): Promise<ShapeSnapshot> {
    return await this.#creator.prepareShape(shape)
  }

  /** @see Creator.renewShape */
  async renewShape(shape: Shape, minimum?: number): Promise<void> {
    await this.#creator.renewShape(shape, minimum)
  }

  /** Digests of read-only files that capsules, checkpoints and snapshots need; `undefined` when that cannot be told. */
  async layersInUse(): Promise<Set<string> | undefined> {
    if (this.#journal.unreadable.size > 0) return undefined
    // A capsule's checkpoints run from the same files as the capsule.
    const ofCapsules = this.list().flatMap(({ image }) => image.layers)
    const ofSnapshots = await layersOfStates(this.#context.machine.pool.path, dirs.snapshots())
    if (ofSnapshots === undefined) return undefined
    return new Set([...ofCapsules, ...ofSnapshots, ...this.#hibernation.layers])
  }

  /** The hot pool leaves the CPU to whoever waits for an answer. */
  async #counted<T>(task: () => Promise<T>): Promise<T> {
    this.#creating++
    try {
      return await task()
    } finally {
      this.#creating--
      this.#context.hotPool.wakeWhenQuiet()
    }
  }
}

async function noVault(): Promise<never> {
  throw new AppError(
    'not_supported',
    'This host has no object store, where capsules hibernate: set WRENN_OBJECT_STORE for its host agent.',
  )
}
