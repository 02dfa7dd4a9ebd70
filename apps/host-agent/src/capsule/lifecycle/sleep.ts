import { setTimeout as delay } from 'node:timers/promises'
import { AppError, errorText } from '@wrenn/base'
import type { PauseReason } from '@wrenn/protocol'
import {
  type Context,
  closeLine,
  currentDir,
  DRAIN_MS,
  dirs,
  manifestOf,
  planOf,
  startRevival,
  syncGuest,
  tearDown,
  watchExit,
} from '../context.js'
import type { Guest, GuestPlan } from '../guest/index.js'
import { type FlushOptions, hardwareOf, type StateManifest } from '../state/index.js'
import { StepTimer } from '../step-timer.js'
import type { Entry } from '../table.js'
import type { CapsuleRecord, FromDisk, VmResources } from '../types.js'
import { ancestorsOf } from './ancestors.js'
import { ColdStart } from './cold-start.js'

/** Device state, manifests and the file system's own records; memory and disk are on the pool already. */
const SAVE_BYTES = 64 * 2 ** 20
/** Many times what an emulated guest on a busy host takes for a few files; one with gigabytes of them is not waited for. */
const SYNC_MS = 2_000
const IDLE_SYNC = { dropCaches: true, timeoutMs: 10_000 }

/**
 * Pause and resume. Neither grows with memory or disk: a pause takes the guest's files over in place (a reflink would first
 * write back every dirty page), and a resume maps them again. Only a state that is durable already is resumed on clones,
 * which are cheap then, so that the durable one stays to fall back on.
 */
export class Sleep {
  readonly #context: Context
  readonly #coldStart: ColdStart

  constructor(context: Context) {
    this.#context = context
    this.#coldStart = new ColdStart(context)
  }

  /**
   * @throws AppError `capsule_not_found`, `invalid_state`, `disk_full`, `engine_failure`; the capsule then runs as before
   */
  async pause(capsuleId: string, reason: PauseReason): Promise<CapsuleRecord> {
    const { table } = this.#context
    return await table.exclusive(capsuleId, async () => {
      const current = table.entry(capsuleId)
      if (current.record.state === 'paused') return current.record
      const entry = table.require(capsuleId, 'pause')
      const { guest } = entry
      if (guest === undefined) throw new AppError('invalid_state', 'The capsule has no running guest.')
      // A capsule that fills the pool is stopped with what is left of it: refusing would let it go on.
      if (reason !== 'pool_low') await this.#context.machine.pool.ensureSpace(SAVE_BYTES)
      await this.#pause(entry, guest, reason)
      return entry.record
    })
  }

  /**
   * Lets a capsule go on from its saved state, or starts it from its disk alone.
   * @throws AppError `capsule_not_found`, `invalid_state`, `snapshot_damaged`, `state_not_loadable`, `engine_failure`, `disk_full`;
   * the saved state then stays as it was
   */
  async resume(capsuleId: string, fromDisk?: FromDisk): Promise<CapsuleRecord> {
    const { table } = this.#context
    return await table.exclusive(capsuleId, async () => {
      const current = table.entry(capsuleId)
      if (current.record.state === 'running') return current.record
      const entry = table.require(capsuleId, 'resume')
      if (fromDisk === undefined) await this.#resume(entry)
      else await this.#coldStart.run(entry, fromDisk)
      return entry.record
    })
  }

  async #pause(entry: Entry, guest: Guest, reason: PauseReason): Promise<void> {
    const { calls, table, states, reach, logger } = this.#context
    const timer = new StepTimer(this.#context.tracer)
    const dir = currentDir(entry)
    await table.move(entry, 'pause')
    try {
      reach('pause:begun')
      const [synced] = await Promise.all([
        this.#writtenOut(entry, reason),
        calls.settled(entry.record.capsuleId, DRAIN_MS),
      ])
      timer.mark('sync')
      using _ = guest.client.pulse.hold()
      await guest.vm.pause()
      timer.mark('stop')
      reach('pause:stopped')
      const { sha256 } = await guest.vm.save(states.files(dir).statePath)
      timer.mark('save')
      reach('pause:saved')
      await states.commit(dir, manifestOf(entry, guest, this.#context, synced), sha256)
      timer.mark('commit')
      reach('pause:committed')
      await this.#fallAsleep(entry, reason, timer)
    } catch (error) {
      await this.#stayAwake(entry, guest, dir, error)
      throw error
    }
    closeLine(entry)
    tearDown(entry, this.#context, guest, async () => await table.settle(entry, { resources: undefined }))
    this.flush(entry)
    logger.info({ capsuleId: entry.record.capsuleId, reason, ms: timer.totalMs() }, 'capsule.paused')
  }

  /**
   * Has the guest write its files out, so that its disk alone is worth something should its memory ever not load. Nobody waits
   * for an idle pause, which also makes the files small; an asked-for one gives it a moment and takes what was written by then.
   * Where the host is short of memory or space, it is stopped as it is.
   */
  async #writtenOut(entry: Entry, reason: PauseReason): Promise<boolean> {
    if (reason === 'idle') return await syncGuest(entry, this.#context, IDLE_SYNC)
    if (reason !== 'request') return false
    const synced = syncGuest(entry, this.#context, { timeoutMs: SYNC_MS })
    return await Promise.race([synced, delay(SYNC_MS, false)])
  }

  /** The exact reverse of a pause that did not come to its end. */
  async #stayAwake(entry: Entry, guest: Guest, dir: string, cause: unknown): Promise<void> {
    const { table, states, logger } = this.#context
    logger.warn({ capsuleId: entry.record.capsuleId, error: errorText(cause) }, 'capsule.pause_failed')
    await states.retract(dir)
    await guest.vm.resume().catch(() => {}) // a guest that has ended is noticed by its watch
    await table.settleMove(entry, 'failed')
  }

  async #fallAsleep(entry: Entry, reason: PauseReason, timer: StepTimer): Promise<void> {
    const { table, states } = this.#context
    await states.seal(currentDir(entry))
    await table.move(entry, 'paused', {
      pauseReason: reason,
      pausedAtMs: Date.now(),
      durableAtMs: undefined,
      exit: undefined,
      reviving: undefined,
      lifecycleTimings: timer.steps(),
    })
  }

  /** Makes a paused capsule's state durable in the background, and then drops what was kept in its place. */
  flush(entry: Entry, options: Pick<FlushOptions, 'settleMs' | 'onFailure'> = {}): void {
    const { flusher, states, table } = this.#context
    const { capsuleId, files } = entry.record
    const dir = currentDir(entry)
    const onDurable = async (durableAtMs: number): Promise<void> => {
      // Before an older state goes the journal must name this one even after a power loss. Nobody waits meanwhile.
      await table.sync(entry)
      const old = await table.exclusive(capsuleId, async () => {
        const { record } = entry
        if (table.find(capsuleId) !== entry || record.state !== 'paused' || record.files !== files) return undefined
        if ((await states.durable(dir)) === undefined) return undefined // saved anew since, by a resume that failed
        const { fallback } = record
        await table.store(entry, { durableAtMs, fallback: undefined })
        return fallback
      })
      // Nothing names it any more, and removing gigabytes takes a second: a resume must not wait for that.
      if (old !== undefined) await this.#removeOld(dirs.generation(capsuleId, old))
    }
    flusher.enqueue(dir, onDurable, options)
  }

  async #resume(entry: Entry): Promise<void> {
    const { table, states, machine, reach, logger, flusher } = this.#context
    const timer = new StepTimer(this.#context.tracer)
    await entry.teardown
    await this.#fallBack(entry)
    const dir = currentDir(entry)
    const [saved, durable] = await Promise.all([states.usable(dir), states.durable(dir)])
    timer.mark('check')
    await table.move(entry, 'resume', { engineVersion: await machine.engine.version() })
    if (durable === undefined) flusher.cancel(dir)
    await flusher.settled(dir)
    try {
      reach('resume:begun')
      entry.guest =
        durable === undefined
          ? await this.#resumeInPlace(entry, timer, saved)
          : await this.#resumeClone(entry, timer, saved)
    } catch (error) {
      await this.#sleepOn(entry, error)
      throw error
    }
    const timings = [...(entry.fetched === undefined ? [] : [entry.fetched]), ...timer.steps()]
    entry.fetched = undefined
    await table.settleMove(entry, 'started', { lifecycleTimings: timings, exit: undefined })
    const { guest } = entry
    if (guest !== undefined) watchExit(entry, guest, this.#context)
    startRevival(entry, this.#context)
    logger.info(
      { capsuleId: entry.record.capsuleId, clone: durable !== undefined, ms: timer.totalMs() },
      'capsule.resumed',
    )
  }

  /** A guest that ended by itself goes on from what was saved of it last: an older state, or the checkpoint it stands on. */
  async #fallBack(entry: Entry): Promise<void> {
    const { states, table } = this.#context
    const { capsuleId, state, files, fallback, checkpointId, exit } = entry.record
    if (state === 'paused' || (await states.read(currentDir(entry))) !== undefined) return
    const nearest = [
      fallback === undefined ? undefined : dirs.generation(capsuleId, fallback),
      checkpointId === undefined ? undefined : dirs.checkpoint(capsuleId, checkpointId),
    ]
    const [newest] = await ancestorsOf(entry.record, states, (error, dir) => {
      if (nearest.includes(dir)) throw error // somebody must choose to lose more than that
    })
    if (newest === undefined) {
      throw new AppError('invalid_state', 'The capsule has ended and no state of it was saved to resume from.')
    }
    const { dir, isCheckpoint, manifest } = newest
    await states.usable(dir) // before the files that the guest left are given up for it
    if (isCheckpoint) await states.copy(dir, dirs.generation(capsuleId, files + 1))
    const durable = isCheckpoint ? undefined : await states.durable(dir)
    const why = exit?.message ?? 'its host restarted'
    const when = new Date(manifest.savedAtMs).toISOString()
    await table.store(entry, {
      files: isCheckpoint || fallback === undefined ? files + 1 : fallback,
      fallback: undefined,
      checkpointId: newest.checkpointId,
      durableAtMs: durable?.atMs,
      notice: `The capsule had ended (${why}) and went on from the state saved at ${when}.`,
    })
  }

  async #resumeInPlace(entry: Entry, timer: StepTimer, saved: StateManifest): Promise<Guest> {
    const { states, reach, factory } = this.#context
    const { record } = entry
    const plan = this.#planOf(entry, record.files, saved)
    const guest = await factory.restoreInPlace(plan)
    timer.mark('restore')
    try {
      reach('resume:restored')
      await this.#prepareToRun(entry)
      // From here on the files belong to the guest: were the manifest still there, a crash could make us trust it.
      await states.retract(plan.dir)
      reach('resume:retracted')
    } catch (error) {
      await this.#drop(guest)
      // Its vCPUs never ran: the files are what they were.
      if (!(await states.exists(plan.dir))) await states.commit(plan.dir, saved)
      throw error
    }
    try {
      await guest.vm.resume()
    } catch (error) {
      await this.#drop(guest)
      throw error
    }
    timer.mark('run')
    return guest
  }

  async #resumeClone(entry: Entry, timer: StepTimer, saved: StateManifest): Promise<Guest> {
    const { states, reach, factory } = this.#context
    const from = entry.record.files
    const files = from + 1
    const plan = this.#planOf(entry, files, saved)
    await states.remove(plan.dir) // of a resume that did not come to its end
    const guest = await factory.restore(plan, states.files(currentDir(entry)), { paused: true })
    timer.mark('restore')
    const { fallback } = entry.record
    try {
      await states.copyHint(currentDir(entry), plan.dir)
      reach('resume:restored')
      await this.#prepareToRun(entry, { files, fallback: from })
      reach('resume:switched')
      await guest.vm.resume()
    } catch (error) {
      await this.#context.table.settle(entry, { files: from, fallback })
      await this.#drop(guest)
      await states.remove(plan.dir)
      throw error
    }
    timer.mark('run')
    if (fallback !== undefined) await this.#removeOld(dirs.generation(entry.record.capsuleId, fallback))
    return guest
  }

  /** What cannot be removed now is garbage for the collector. */
  async #removeOld(dir: string): Promise<void> {
    const { states, logger } = this.#context
    await states.remove(dir).catch((error: unknown) => logger.warn({ err: error, dir }, 'state.not_removed'))
  }

  #planOf(entry: Entry, files: number, saved: StateManifest): GuestPlan {
    const onResources = (resources: VmResources) => this.#journal(entry, { resources })
    const plan = planOf(entry, this.#context, { files, hardware: hardwareOf(saved), onResources })
    return { ...plan, egress: entry.record.egress }
  }

  async #prepareToRun(entry: Entry, change: Partial<CapsuleRecord> = {}): Promise<void> {
    await this.#journal(entry, { ...change, reviving: true })
  }

  async #journal(entry: Entry, change: Partial<CapsuleRecord>): Promise<void> {
    await this.#context.table.store(entry, change)
  }

  async #drop(guest: Guest): Promise<void> {
    guest.client.close()
    await this.#context.factory.stop(guest.resources, guest.vm)
  }

  /** The exact reverse of a resume that did not come to its end. */
  async #sleepOn(entry: Entry, cause: unknown): Promise<void> {
    const { table, states, logger } = this.#context
    logger.warn({ capsuleId: entry.record.capsuleId, error: errorText(cause) }, 'capsule.resume_failed')
    const dir = currentDir(entry)
    await states.seal(dir)
    const gone = { resources: undefined, reviving: undefined }
    if ((await states.read(dir)) !== undefined) {
      await table.settleMove(entry, 'failed', gone)
      if (entry.record.durableAtMs === undefined) this.flush(entry)
      return
    }
    const exit = {
      cause: 'engine_failure' as const,
      message: `The capsule could not go on after its state was loaded: ${errorText(cause)}`,
      ...{ exitCode: undefined, signal: undefined, consoleTail: '', atMs: Date.now() },
    }
    await table.settleMove(entry, 'exited', { ...gone, exit })
  }
}
