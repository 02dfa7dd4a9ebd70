import { AppError } from '@wrenn/base'
import type { VmExit } from '@wrenn/vmm'
import { lostLearned } from '../../host/names/index.js'
import { type Context, currentDir, dirs, recordExit, startRevival, watchExit } from '../context.js'
import type { Guest } from '../guest/index.js'
import type { Durable } from '../state/index.js'
import type { Entry } from '../table.js'
import type { CapsuleRecord, VmResources } from '../types.js'
import { ancestorsOf } from './ancestors.js'
import { removeUnnamedGenerations } from './generations.js'
import type { Sleep } from './sleep.js'

const GUEST_LOST: Omit<VmExit, 'atMs' | 'message'> = {
  cause: 'unknown',
  exitCode: undefined,
  signal: undefined,
  consoleTail: '',
}

/**
 * Takes up what the journal says was there, after the host agent or the host itself went down at any moment. The rules: a
 * manifest in the capsule's current directory means that its state is saved and no guest has run on it since; without one the
 * guest is the state. So every command that was broken off is finished or undone, and nothing is half-way.
 */
export class Recovery {
  readonly #context: Context
  readonly #sleep: Sleep
  readonly #destroy: (capsuleId: string) => Promise<unknown>

  constructor(context: Context, sleep: Sleep, destroy: (capsuleId: string) => Promise<unknown>) {
    this.#context = context
    this.#sleep = sleep
    this.#destroy = destroy
  }

  /** Takes up the capsules of an earlier start: guests that still run, states that can be resumed, and what was under way. */
  async adopt(records: readonly CapsuleRecord[]): Promise<void> {
    const running = new Set<string>(records.filter(({ state }) => state === 'running').map((each) => each.capsuleId))
    for (const record of records) {
      const entry = this.#context.table.add(record)
      try {
        // Its fork has happened: it runs, and only its record does not say so yet.
        if (record.leader !== undefined && running.has(record.leader)) {
          await this.#context.table.move(entry, 'started', { leader: undefined })
        }
        await this.#adoptOne(entry)
      } catch (error) {
        // One capsule that cannot be understood must not keep the host from the others.
        this.#context.logger.error({ err: error, capsuleId: record.capsuleId }, 'capsule.adopt_failed')
      }
    }
  }

  async #adoptOne(entry: Entry): Promise<void> {
    const { record } = entry
    const { capsuleId } = record
    if (record.state === 'starting' || record.state === 'pending' || record.state === 'stopping') {
      await this.#abandon(entry)
      return
    }
    // What its guests before this start were seen to use was in memory.
    if (record.egress.learn === true) entry.learned = lostLearned
    await this.#undoRollback(entry)
    if (record.bootId !== this.#context.bootId) await this.#afterHostRestart(entry)
    else await this.#afterRestart(entry)
    if (this.#context.table.find(capsuleId) === entry) await this.#tidy(entry)
  }

  /**
   * A rollback that failed was being undone while the journal could not be written: the files it had switched to are gone, so
   * its last guest is the capsule's. Otherwise they are there, and the next guest is.
   */
  async #undoRollback(entry: Entry): Promise<void> {
    const { states, table, logger } = this.#context
    const { undo, other, resources, capsuleId, files } = entry.record
    if (undo === undefined || (await states.list(dirs.capsule(capsuleId))).includes(String(files))) return
    const { fallback, checkpointId, reviving, exit, notice } = undo
    const guests = { resources: other, other: resources, undo: undefined }
    const change = { ...guests, files: undo.files, fallback, checkpointId, reviving, exit, notice }
    if (entry.record.state === undo.state) await table.store(entry, change)
    else await table.move(entry, 'exited', change)
    logger.warn({ capsuleId }, 'capsule.rollback_undone')
  }

  async #afterRestart(entry: Entry): Promise<void> {
    const { factory, states, table } = this.#context
    const { resources, other, undo, secret, state } = entry.record
    if (other !== undefined) await factory.stop(other, undefined)
    if (other !== undefined || undo !== undefined) await table.store(entry, { other: undefined, undo: undefined })
    if (state === 'resuming' && resources !== undefined && resources.dir !== currentDir(entry)) {
      await this.#undoStart(entry, resources)
      return
    }
    const saved = (await states.read(currentDir(entry))) !== undefined
    if (saved && (state === 'pausing' || state === 'resuming' || state === 'paused')) {
      await this.#stayPaused(entry, resources)
      return
    }
    const guest = resources === undefined ? undefined : await factory.adopt(resources, secret)
    if (guest !== undefined) await this.#goOn(entry, guest)
    // The exit of one that was about to go on is of the guest before.
    else if (state !== 'error' || entry.record.exit === undefined) await this.#guestLost(entry)
  }

  /** A guest was being started on a clone of the capsule's files, and did not become the capsule: they are what it was. */
  async #undoStart(entry: Entry, resources: VmResources): Promise<void> {
    const { factory, states, table, logger } = this.#context
    const { capsuleId, exit } = entry.record
    const saved = await states.exists(currentDir(entry))
    if (saved) return await this.#stayPaused(entry, resources)
    await factory.stop(resources, undefined)
    const lost = { ...GUEST_LOST, message: 'The guest ended.', atMs: Date.now() }
    await table.move(entry, 'exited', { resources: undefined, reviving: undefined, exit: exit ?? lost })
    logger.info({ capsuleId }, 'capsule.start_undone')
  }

  /** A create that died half-way left nobody waiting for it: its caller asks again. */
  async #abandon(entry: Entry): Promise<void> {
    const { resources, secret } = entry.record
    if (resources !== undefined) entry.guest = await this.#context.factory.adopt(resources, secret)
    await this.#destroy(entry.record.capsuleId)
  }

  /** The state is complete; what is left of a guest has not run on it since, or was about to be given back. */
  async #stayPaused(entry: Entry, resources: VmResources | undefined): Promise<void> {
    const { factory, states, table, logger } = this.#context
    const { state, capsuleId } = entry.record
    if (resources !== undefined) await factory.stop(resources, undefined)
    await states.seal(currentDir(entry))
    const gone = { resources: undefined, reviving: undefined }
    if (state === 'paused') await table.store(entry, gone)
    else await table.move(entry, 'paused', { ...gone, pausedAtMs: entry.record.pausedAtMs ?? Date.now() })
    if (state === 'pausing') {
      await table.store(entry, {
        pauseReason: entry.record.pauseReason ?? 'request',
        pausedAtMs: Date.now(),
        durableAtMs: undefined,
      })
    }
    const durable = await states.durable(currentDir(entry))
    if (durable === undefined) this.#sleep.flush(entry)
    else if (entry.record.durableAtMs === undefined) await table.store(entry, { durableAtMs: durable.atMs })
    logger.info({ capsuleId, was: state }, 'capsule.adopted_paused')
  }

  async #goOn(entry: Entry, guest: Guest): Promise<void> {
    const { machine, states, table, logger } = this.#context
    const { state, capsuleId, egress, reviving } = entry.record
    entry.guest = guest
    await states.retract(currentDir(entry)) // half of a save
    await machine.slots.applyPolicy(guest.resources.slotIndex, egress)
    if ((await guest.vm.status()) === 'paused') await guest.vm.resume()
    if (state === 'pausing') await table.move(entry, 'failed')
    else if (state === 'resuming') await table.move(entry, 'started', { exit: undefined })
    watchExit(entry, guest, this.#context)
    if (reviving === true || state === 'resuming') startRevival(entry, this.#context)
    logger.info({ capsuleId, was: state }, 'capsule.adopted')
  }

  async #guestLost(entry: Entry): Promise<void> {
    const { record } = entry
    // A resume that had just switched to its copy: what it was copied from is all still there.
    if (record.state === 'resuming' && (await this.#fallBack(entry, 'its guest ended while its host agent was down')))
      return
    const message = 'The guest ended while its host agent was not running.'
    await recordExit(entry, { ...GUEST_LOST, message, atMs: Date.now() }, this.#context)
  }

  /** Every guest of the host is gone, and what had not reached the disk may be. */
  async #afterHostRestart(entry: Entry): Promise<void> {
    const { factory, states, table, bootId } = this.#context
    for (const left of [entry.record.resources, entry.record.other]) {
      // Its pid may be anybody's in this boot.
      if (left !== undefined) await factory.stop({ ...left, vm: undefined }, undefined)
    }
    await table.store(entry, { bootId, resources: undefined, other: undefined, undo: undefined, reviving: undefined })
    const { state } = entry.record
    const dir = currentDir(entry)
    const saved = (await states.read(dir).catch(() => undefined)) !== undefined
    if (saved && (await states.durable(dir)) !== undefined) await this.#stayPaused(entry, undefined)
    else if (await this.#fallBack(entry, 'its host restarted')) return
    else if (saved && state !== 'running') {
      const notice = 'The host restarted before this state was known to be on the disk: it may be damaged.'
      await this.#stayPaused(entry, undefined)
      await table.store(entry, { notice })
    } else if (state !== 'error' || entry.record.exit === undefined) {
      const message = 'The host restarted while the capsule ran, and no state of it had been saved.'
      await recordExit(entry, { ...GUEST_LOST, message, atMs: Date.now() }, this.#context)
    }
  }

  /** Puts the capsule on the newest older state that is durable. False when there is none. */
  async #fallBack(entry: Entry, why: string): Promise<boolean> {
    const { states, table, logger } = this.#context
    const { capsuleId, fallback, files, state } = entry.record
    const onDamage = (error: unknown, dir: string) =>
      logger.error({ err: error, capsuleId, dir }, 'capsule.fallback_damaged')
    for (const { dir, isCheckpoint, checkpointId, manifest } of await ancestorsOf(entry.record, states, onDamage)) {
      const durable = await this.#durableAndIntact(dir, onDamage)
      if (durable === undefined) continue
      if (isCheckpoint) await states.copy(dir, dirs.generation(capsuleId, files + 1))
      const change = {
        files: isCheckpoint || fallback === undefined ? files + 1 : fallback,
        fallback: undefined,
        checkpointId,
        resources: undefined,
        reviving: undefined,
        exit: undefined,
        durableAtMs: isCheckpoint ? undefined : durable.atMs,
        pausedAtMs: Date.now(),
        pauseReason: 'host_restart' as const,
        notice: `The capsule went back to the state saved at ${new Date(manifest.savedAtMs).toISOString()}, because ${why}.`,
      }
      if (state === 'paused') await table.store(entry, change)
      else await table.move(entry, 'paused', change)
      if (entry.record.durableAtMs === undefined) this.#sleep.flush(entry)
      logger.warn({ capsuleId, dir, why }, 'capsule.fell_back')
      return true
    }
    return false
  }

  async #durableAndIntact(dir: string, onDamage: (error: unknown, dir: string) => void): Promise<Durable | undefined> {
    const { states } = this.#context
    try {
      const durable = await states.durable(dir)
      if (durable !== undefined) await states.intact(dir)
      return durable
    } catch (error) {
      onDamage(error, dir)
      return undefined
    }
  }

  /** Removes generations that nothing refers to, and drafts. */
  async #tidy(entry: Entry): Promise<void> {
    const { states, flusher } = this.#context
    const { capsuleId } = entry.record
    await states.removeDrafts(dirs.capsule(capsuleId))
    await states.removeDrafts(dirs.checkpoints(capsuleId))
    await removeUnnamedGenerations(entry.record, this.#context)
    for (const id of await states.list(dirs.checkpoints(capsuleId))) {
      const dir = dirs.checkpoint(capsuleId, id)
      if ((await states.durable(dir).catch(ignoreDamage)) === undefined) flusher.enqueue(dir, async () => {})
    }
  }
}

/** Whoever uses a damaged state is told; it must not stop the start of the host. */
function ignoreDamage(error: unknown): undefined {
  if (AppError.is(error, 'snapshot_damaged')) return undefined
  throw error
}
