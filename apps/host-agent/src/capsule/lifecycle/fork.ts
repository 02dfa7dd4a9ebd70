import { AppError, type CapsuleId } from '@wrenn/base'
import { type Context, dirs, planOf, release, requireMade, requireReachable, watchExit } from '../context.js'
import { tryToTrustEdge, withAuthority } from '../edge.js'
import { type Guest, identifyCopy, newSecret } from '../guest/index.js'
import type { Admission } from '../pool/index.js'
import { hardwareOf, type StateManifest } from '../state/index.js'
import { StepTimer } from '../step-timer.js'
import type { Entry } from '../table.js'
import type { CapsuleRecord, EgressPolicy, Timing, VmResources } from '../types.js'
import { capture, captureCheckpoint } from './capture.js'

const SAVE_BYTES = 64 * 2 ** 20
const WAY_OUT = 'Start the capsule from its disk first, then fork it.'

/** One copy to be, with the identity that it gets before anybody reaches it. */
export interface ForkCopy {
  readonly capsuleId: CapsuleId
  readonly hostname: string
  /** The control plane's counter for its record, which orders what it hears of it. */
  readonly generation: number
  /** Added to the source's environment. */
  readonly envs: Readonly<Record<string, string>>
  /** @default the source's */
  readonly egress?: EgressPolicy
  readonly egressRevision?: number
}

/** The records of all copies, which run. Empty timings and a window of 0 when an earlier call had made them. */
export interface ForkResult {
  readonly records: readonly CapsuleRecord[]
  /** How long the source stood still. */
  readonly pauseWindowMs: number
  readonly timings: readonly Timing[]
}

interface Started {
  readonly entry: Entry
  readonly guest: Guest
}

/** Running copies of a capsule, memory included: one save of the source, then a restore per copy. */
export class Fork {
  readonly #context: Context
  readonly #admission: Admission

  constructor(context: Context, admission: Admission) {
    this.#context = context
    this.#admission = admission
  }

  /**
   * All copies or none; idempotent by the copies' ids. With a checkpoint they are as the source was then.
   * @throws AppError `capsule_not_found`, `checkpoint_not_found`, `invalid_state`, `conflict`, `guest_died`, `disk_full`, `engine_failure`,
   * `guest_unreachable`
   */
  async run(capsuleId: string, copies: readonly ForkCopy[], checkpointId?: string): Promise<ForkResult> {
    // Whoever asks again, or destroys a copy, waits until it is decided whether there are copies.
    return await this.#holding(
      copies.map((copy) => copy.capsuleId),
      async () => this.#made(copies) ?? (await this.#make(capsuleId, copies, checkpointId)),
    )
  }

  /** Runs `task` while no other command works on these capsules; always in the same order, so that nobody waits in a ring. */
  async #holding<T>(capsuleIds: readonly string[], task: () => Promise<T>): Promise<T> {
    const { table } = this.#context
    const hold = (rest: () => Promise<T>, capsuleId: string) => () => table.exclusive(capsuleId, rest)
    return await [...capsuleIds].sort().reduceRight(hold, task)()
  }

  async #make(capsuleId: string, copies: readonly ForkCopy[], checkpointId?: string): Promise<ForkResult> {
    const { table, machine, states, logger } = this.#context
    const timer = new StepTimer(this.#context.tracer)
    // The source is only held while it is saved: it may be used, paused and destroyed while its copies start.
    const seed = dirs.scratch(capsuleId, 'seed')
    // Before the source is held: whoever destroys or rolls it back because it cannot be reached need not wait.
    if (checkpointId === undefined) await requireReachable(table.require(capsuleId, 'fork'), 'A copy')
    try {
      const { source, manifest, pauseWindowMs } = await table.exclusive(capsuleId, async () => {
        const entry = table.require(capsuleId, 'fork')
        await machine.pool.ensureSpace(SAVE_BYTES * (copies.length + 1))
        this.#context.reach('fork:begun')
        const saved = await (checkpointId === undefined
          ? capture(entry, this.#context, seed, { syncFiles: false, name: 'fork', timer })
          : captureCheckpoint(entry, this.#context, checkpointId, seed, timer))
        await states.requireLoadable(saved.manifest, WAY_OUT)
        return { ...saved, source: entry.record }
      })
      const records = await this.#startAll(source, manifest, seed, copies)
      timer.mark('copies')
      logger.info({ capsuleId, copies: copies.length, ms: timer.totalMs(), pauseWindowMs }, 'capsule.forked')
      return { records, pauseWindowMs, timings: timer.steps() }
    } finally {
      await states.remove(seed)
    }
  }

  #made(copies: readonly ForkCopy[]): ForkResult | undefined {
    const found = copies.map(({ capsuleId }) => this.#context.table.find(capsuleId)?.record)
    if (found.every((record) => record === undefined)) return undefined
    const records = found.filter((record) => record !== undefined)
    if (records.length === copies.length) return { records: records.map(requireMade), pauseWindowMs: 0, timings: [] }
    throw new AppError('conflict', 'Some of the copies exist already; destroy them before forking again.')
  }

  async #startAll(
    source: CapsuleRecord,
    manifest: StateManifest,
    seed: string,
    copies: readonly ForkCopy[],
  ): Promise<CapsuleRecord[]> {
    const leader = copies[0]?.capsuleId
    const failures: unknown[] = []
    const start = async (copy: ForkCopy): Promise<Started | undefined> => {
      if (failures.length > 0) return undefined // all or none: those still in the queue are not begun
      try {
        const egress = await withAuthority(copy.egress ?? source.egress, source.egress.authority)
        const record = { ...this.#newRecord(source, manifest, copy), egress, leader }
        return await this.#start(record, seed, manifest, copy)
      } catch (error) {
        failures.push(error)
        return undefined
      }
    }
    const results = await Promise.all(copies.map((copy) => this.#admission.run(() => start(copy))))
    const started = results.filter((result) => result !== undefined)
    try {
      if (failures.length > 0) throw failures[0]
      await this.#decide(started)
    } catch (error) {
      for (const { entry } of started) await this.#discard(entry)
      throw error
    }
    for (const { entry, guest } of started) watchExit(entry, guest, this.#context)
    return started.map(({ entry }) => entry.record)
  }

  /** The leader's record makes all copies exist in one step: recovery finishes the others when it runs, and else drops all. */
  async #decide([leader, ...others]: readonly Started[]): Promise<void> {
    const { table, reach } = this.#context
    if (leader === undefined) return
    await table.move(leader.entry, 'started', { leader: undefined })
    reach('fork:kept')
    for (const { entry } of others) await table.move(entry, 'started', { leader: undefined })
  }

  async #start(record: CapsuleRecord, seed: string, manifest: StateManifest, copy: ForkCopy): Promise<Started> {
    const { table, factory, states, machine, reach, logger, tracer } = this.#context
    const timer = new StepTimer(tracer, { 'wrenn.capsule_id': copy.capsuleId })
    const entry = table.add(record)
    try {
      await table.store(entry, { engineVersion: await machine.engine.version() })
      const onResources = (resources: VmResources) => table.store(entry, { resources })
      const plan = planOf(entry, this.#context, { files: 0, hardware: hardwareOf(manifest), onResources })
      const guest = await factory.restore({ ...plan, egress: record.egress }, states.files(seed), { paused: true })
      entry.guest = guest
      timer.mark('restore')
      reach('fork:restored')
      await guest.vm.resume()
      const secret = newSecret()
      await identifyCopy(guest.client, { ...copy, secret })
      await tryToTrustEdge(guest, record, logger)
      timer.mark('identify')
      await table.store(entry, { secret, resources: guest.resources, timings: timer.steps() })
      reach('fork:started')
      return { entry, guest }
    } catch (error) {
      await this.#discard(entry)
      throw error
    }
  }

  async #discard(entry: Entry): Promise<void> {
    const { table, factory } = this.#context
    await release(entry, this.#context)
    await factory.removeFiles(entry.record.capsuleId)
    await table.remove(entry)
  }

  #newRecord(source: CapsuleRecord, manifest: StateManifest, copy: ForkCopy): CapsuleRecord {
    const now = Date.now()
    return {
      ...source,
      capsuleId: copy.capsuleId,
      hostname: copy.hostname,
      generation: copy.generation,
      egressRevision: copy.egressRevision ?? source.egressRevision,
      secret: manifest.secret,
      state: 'starting',
      path: 'restore',
      files: 0,
      resources: undefined,
      timings: [],
      createdAtMs: now,
      lastActiveAtMs: now,
      parentId: source.capsuleId,
      ...{
        other: undefined,
        undo: undefined,
        fallback: undefined,
        reviving: undefined,
        exit: undefined,
        notice: undefined,
      },
      ...{ lifecycleTimings: undefined, pauseReason: undefined, pausedAtMs: undefined, durableAtMs: undefined },
      ...{ checkpointId: undefined, diskBytes: undefined },
      // A copy was never in the store, and counts its own fetches.
      ...{ stored: undefined, wakeAttempt: undefined },
    }
  }
}
