import { setTimeout as delay } from 'node:timers/promises'
import { AppError, errorText } from '@wrenn/base'
import { isAsleep, isUsable } from '@wrenn/protocol'
import {
  type Context,
  closeLine,
  currentDir,
  DRAIN_MS,
  dirs,
  planOf,
  startRevival,
  tearDown,
  watchExit,
} from '../context.js'
import type { Guest, GuestPlan } from '../guest/index.js'
import { hardwareOf, type StateManifest } from '../state/index.js'
import { StepTimer } from '../step-timer.js'
import type { Entry } from '../table.js'
import type { CapsuleRecord, FromDisk, RollbackUndo, Timing, VmResources } from '../types.js'
import { capture } from './capture.js'
import { bootOnDisk, noticeOf } from './cold-start.js'

const SAVE_BYTES = 64 * 2 ** 20
const END_NOTICED_MS = 2_000

/** A named point in a capsule's time, with all its memory, processes and files. */
export interface Checkpoint {
  readonly checkpointId: string
  readonly capsuleId: string
  /** The checkpoint that the capsule stood on; empty for the first. */
  readonly parentId: string
  readonly createdAtMs: number
  readonly sizeBytes: number
  readonly durableAtMs: number | undefined
  /** Only of one that was just made. */
  readonly pauseWindowMs?: number
  readonly timings?: readonly Timing[]
}

/** Where a rollback goes to. */
interface Target {
  readonly dir: string
  readonly checkpointId: string
  readonly saved: StateManifest
  /** Absent: to its memory, too. */
  readonly fromDisk: FromDisk | undefined
}

/** Checkpoints of a capsule, and going back to one. */
export class Points {
  readonly #context: Context
  readonly #flushSaved: (entry: Entry) => void

  /** `flushSaved` brings a paused capsule's state to the disk behind the caller's back. */
  constructor(context: Context, flushSaved: (entry: Entry) => void) {
    this.#context = context
    this.#flushSaved = flushSaved
  }

  /** Idempotent by id. @throws AppError `capsule_not_found`, `invalid_state`, `disk_full`, `engine_failure` */
  async create(capsuleId: string, checkpointId: string): Promise<Checkpoint> {
    const { table, states, machine, reach, logger } = this.#context
    return await table.exclusive(capsuleId, async () => {
      const dir = dirs.checkpoint(capsuleId, checkpointId)
      const made = await this.#describe(capsuleId, checkpointId)
      if (made !== undefined) {
        await this.#standOn(table.entry(capsuleId), made)
        return made
      }
      const entry = table.require(capsuleId, 'checkpoint')
      await machine.pool.ensureSpace(SAVE_BYTES)
      const timer = new StepTimer(this.#context.tracer)
      reach('checkpoint:begun')
      const { pauseWindowMs } = await capture(entry, this.#context, dir, { syncFiles: true, name: 'checkpoint', timer })
      try {
        reach('checkpoint:kept')
        await table.store(entry, { checkpointId })
      } catch (error) {
        await states.remove(dir)
        throw error
      }
      this.#flush(entry, dir)
      await this.#context.sizes.measureSaved(dir, entry.guest === undefined ? undefined : currentDir(entry))
      const checkpoint = await this.#describe(capsuleId, checkpointId)
      if (checkpoint === undefined) throw new AppError('internal', `The checkpoint ${states.path(dir)} has vanished.`)
      logger.info({ capsuleId, checkpointId, ms: timer.totalMs(), pauseWindowMs }, 'capsule.checkpoint')
      return { ...checkpoint, pauseWindowMs, timings: timer.steps() }
    })
  }

  /** The host agent may have gone down between a checkpoint and the note that the capsule stands on it. */
  async #standOn(entry: Entry, { checkpointId, parentId }: Checkpoint): Promise<void> {
    if ((entry.record.checkpointId ?? '') === parentId) await this.#context.table.store(entry, { checkpointId })
  }

  /** Oldest first, without those whose manifest cannot be read. @throws AppError `capsule_not_found` */
  async list(capsuleId: string): Promise<Checkpoint[]> {
    const { table, states, logger } = this.#context
    table.entry(capsuleId)
    const describe = async (checkpointId: string): Promise<Checkpoint | undefined> =>
      await this.#describe(capsuleId, checkpointId).catch((error: unknown) => {
        logger.error({ capsuleId, checkpointId, error: errorText(error) }, 'checkpoint.damaged')
        return undefined
      })
    const ids = await states.list(dirs.checkpoints(capsuleId))
    const found = await Promise.all(ids.map(describe))
    return found.filter((one) => one !== undefined).sort((a, b) => a.createdAtMs - b.createdAtMs)
  }

  /** Bytes that became free, or `undefined` when there was none. @throws AppError `capsule_not_found` */
  async remove(capsuleId: string, checkpointId: string): Promise<number | undefined> {
    const { table, states, flusher, sizes } = this.#context
    return await table.exclusive(capsuleId, async () => {
      table.entry(capsuleId)
      const dir = dirs.checkpoint(capsuleId, checkpointId)
      const freed = (await states.exists(dir)) ? await sizes.freedBy(dir) : undefined
      flusher.cancel(dir)
      await states.discard(dir)
      sizes.forget(dir)
      return freed
    })
  }

  /**
   * Puts a capsule back to a checkpoint: a running one runs on from there, a paused one resumes from there, and one whose
   * guest has ended runs again. With `fromDisk` it is started from the checkpoint's disk alone, a paused one when it is resumed.
   * @throws AppError `checkpoint_not_found`, `snapshot_damaged`, `invalid_state`, `engine_failure`; it then stays as it was
   */
  async rollback(capsuleId: string, checkpointId: string, fromDisk?: FromDisk): Promise<CapsuleRecord> {
    const { table, states, machine } = this.#context
    return await table.exclusive(capsuleId, async () => {
      const entry = table.require(capsuleId, 'rollback')
      const dir = dirs.checkpoint(capsuleId, checkpointId)
      if ((await states.read(dir)) === undefined) {
        throw new AppError('checkpoint_not_found', `The capsule has no checkpoint ${checkpointId}.`)
      }
      const saved = await (fromDisk === undefined ? states.usable(dir) : states.intact(dir))
      await machine.pool.ensureSpace(SAVE_BYTES)
      const { guest, record } = entry
      if (guest === undefined && isUsable(record.state)) {
        throw new AppError('invalid_state', 'The capsule has no running guest.')
      }
      if (isAsleep(record.state)) await this.#rollBackPaused(entry, dir, checkpointId)
      else await this.#rollBackGuest(entry, { dir, checkpointId, saved, fromDisk })
      return entry.record
    })
  }

  async #rollBackPaused(entry: Entry, from: string, checkpointId: string): Promise<void> {
    const { table, states, flusher, reach } = this.#context
    const { capsuleId, files, fallback, durableAtMs, checkpointId: stoodOn } = entry.record
    await entry.teardown
    const old = currentDir(entry)
    const next = dirs.generation(capsuleId, files + 1)
    await states.copy(from, next)
    try {
      reach('rollback:copied')
      // Durable is the checkpoint, which may be deleted; its copy is not yet.
      await table.store(entry, { files: files + 1, fallback: undefined, durableAtMs: undefined, checkpointId })
      reach('rollback:switched')
    } catch (error) {
      await table.settle(entry, { files, fallback, durableAtMs, checkpointId: stoodOn })
      await states.remove(next)
      throw error
    }
    flusher.cancel(old)
    await this.#removeGenerationsBut(entry)
    this.#flushSaved(entry)
  }

  /** The next guest is complete, vCPUs stopped, before the present one is given up, which may have ended by itself. */
  async #rollBackGuest(entry: Entry, target: Target): Promise<void> {
    const { checkpointId } = target
    const { calls, table, states, factory, machine, reach, logger } = this.#context
    const timer = new StepTimer(this.#context.tracer)
    await entry.teardown // of a rollback just before: when it ends it removes every generation but the present one
    const { record, guest } = entry
    const { capsuleId } = record
    const files = record.files + 1
    const vmId = `${capsuleId}-${files}`
    const onResources = (other: VmResources) => table.store(entry, { other })
    const hardware = target.fromDisk === undefined ? hardwareOf(target.saved) : await machine.engine.newHardware()
    const plan = planOf(entry, this.#context, { files, hardware, onResources, vmId })
    reach('rollback:begun')
    await states.remove(plan.dir) // of a rollback that did not come to its end
    let next: Guest | undefined
    try {
      next = await this.#startNext(plan, entry, target)
      timer.mark(target.fromDisk === undefined ? 'restore' : 'boot')
      reach('rollback:restored')
      await machine.slots.applyPolicy(next.resources.slotIndex, record.egress)
      await calls.settled(capsuleId, DRAIN_MS)
      if (guest !== undefined) await standStill(guest)
      const notice = target.fromDisk === undefined ? record.notice : noticeOf(target.saved)
      const change = {
        resources: next.resources,
        other: guest?.resources,
        files,
        fallback: undefined,
        checkpointId,
        notice,
      }
      await table.move(entry, 'rollback', { ...change, undo: undoOf(record), reviving: true, exit: undefined })
      reach('rollback:switched')
      await next.vm.resume()
      timer.mark('run')
    } catch (error) {
      // What decides, for a journal that cannot be written may name the next guest for as long as its disk is full. Where the
      // pool cannot rename, the journal does.
      const draft = next === undefined ? plan.dir : await states.disown(plan.dir).catch(() => plan.dir)
      await this.#goOnAsBefore(entry, guest, record, next)
      next?.client.close()
      if (next !== undefined) await factory.stop(next.resources, next.vm)
      await table.settle(entry, { other: undefined })
      await states.remove(draft)
      throw error
    }
    entry.rollbacks = (entry.rollbacks ?? 0) + 1
    closeLine(entry)
    entry.guest = next
    tearDown(entry, this.#context, guest, async () => {
      await table.settle(entry, { other: undefined, undo: undefined })
      await this.#removeGenerationsBut(entry)
    })
    watchExit(entry, next, this.#context)
    startRevival(entry, this.#context)
    const done = { lifecycleTimings: timer.steps(), engineVersion: await machine.engine.version() }
    if (guest === undefined) await table.settleMove(entry, 'started', done)
    else await table.settle(entry, done)
    logger.info({ capsuleId, checkpointId, ended: guest === undefined, ms: timer.totalMs() }, 'capsule.rolled_back')
  }

  /** From memory with its vCPUs stopped; from the disk alone it runs already, and on files of its own. */
  async #startNext(plan: GuestPlan, entry: Entry, { dir, fromDisk }: Target): Promise<Guest> {
    const { factory, states } = this.#context
    if (fromDisk === undefined) return await factory.restore(plan, states.files(dir), { paused: true })
    return await bootOnDisk({ ...plan, egress: entry.record.egress }, dir, fromDisk, entry, this.#context)
  }

  /** The exact reverse of a rollback that did not come to its end; the journal first, so that a crash finds the old guest. */
  async #goOnAsBefore(
    entry: Entry,
    guest: Guest | undefined,
    before: CapsuleRecord,
    next: Guest | undefined,
  ): Promise<void> {
    const { table } = this.#context
    const { files, fallback, checkpointId, reviving, exit, notice } = before
    const guests = { resources: guest?.resources, other: next?.resources, undo: undefined }
    const change = { ...guests, files, fallback, checkpointId, reviving, exit, notice }
    if (entry.record.state === before.state) await table.settle(entry, change)
    else await table.settleMove(entry, 'exited', change)
    await guest?.vm.resume().catch(() => {}) // one that has ended is noticed by its watch
  }

  /** What was before a rollback is gone: falling back on it later would undo the rollback. */
  async #removeGenerationsBut(entry: Entry): Promise<void> {
    const { states, table } = this.#context
    const { capsuleId } = entry.record
    for (const name of await states.list(dirs.capsule(capsuleId))) {
      if (table.find(capsuleId) !== entry) return
      if (/^\d+$/.test(name) && Number(name) !== entry.record.files) {
        await states.remove(dirs.generation(capsuleId, Number(name)))
      }
    }
  }

  /** Whoever follows the capsule learns with its record that its checkpoint is durable. */
  #flush(entry: Entry, dir: string): void {
    const { flusher, table } = this.#context
    flusher.enqueue(dir, async () => await table.store(entry, {}))
  }

  async #describe(capsuleId: string, checkpointId: string): Promise<Checkpoint | undefined> {
    const { states, sizes } = this.#context
    const dir = dirs.checkpoint(capsuleId, checkpointId)
    const manifest = await states.read(dir)
    if (manifest === undefined) return undefined
    const durable = await states.durable(dir)
    return {
      checkpointId,
      capsuleId,
      parentId: manifest.parentId,
      createdAtMs: manifest.savedAtMs,
      sizeBytes: sizes.own(dir),
      durableAtMs: durable?.atMs,
    }
  }
}

function undoOf({ state, files, fallback, checkpointId, reviving, exit, notice }: CapsuleRecord): RollbackUndo {
  return { state, files, fallback, checkpointId, reviving, exit, notice }
}

/** A guest that ends meanwhile stands still, too; its end may be noticed a moment after the line to it breaks. */
async function standStill({ vm }: Guest): Promise<void> {
  try {
    await vm.pause()
  } catch (error) {
    const hasEnded = vm.exited.then(() => true)
    if (!(await Promise.race([hasEnded, delay(END_NOTICED_MS, false, { ref: false })]))) throw error
  }
}
