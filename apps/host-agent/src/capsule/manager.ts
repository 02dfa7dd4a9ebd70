import { randomBytes } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { AppError, type CapsuleId, KeyedMutex, type Logger, UndoStack } from '@wrenn/base'
import { type CapsuleCommand, type CapsuleState, isUsable, nextState } from '@wrenn/protocol'
import type { VmExit } from '@wrenn/vmm'
import { Admission } from './admission.js'
import type { Guest, GuestFactory } from './guest.js'
import { identify, identifyWaiting, warmUp } from './guest-session.js'
import type { HotPool } from './hot-pool.js'
import type { Journal } from './journal.js'
import type { Machine } from './machine.js'
import type { Shape, ShapeSnapshot, ShapeStore } from './shapes.js'
import { StepTimer } from './step-timer.js'
import type { CapsuleRecord, CreateCapsuleInput, CreatePath, VmResources } from './types.js'

/** A cold boot on a busy machine without hardware virtualization. */
const BOOT_TIMEOUT_MS = 120_000

interface Entry {
  record: CapsuleRecord
  guest: Guest | undefined
}

export type CapsuleEvent = { readonly record: CapsuleRecord } | { readonly removed: CapsuleId }

export interface ManagerDeps {
  readonly machine: Machine
  readonly journal: Journal
  readonly factory: GuestFactory
  readonly shapes: ShapeStore
  readonly hotPool: HotPool
  readonly logger: Logger
}

/** Owns the capsules of this host. One command at a time per capsule; the journal is written before each step counts. */
export class CapsuleManager {
  readonly #deps: ManagerDeps
  readonly #entries = new Map<string, Entry>()
  readonly #mutex = new KeyedMutex()
  readonly #listeners = new Set<(event: CapsuleEvent) => void>()
  readonly #coldBoots = new Map<string, Promise<unknown>>()
  readonly #admission = new Admission(Math.max(2, availableParallelism()))
  #creating = 0
  #detached = false

  constructor(deps: ManagerDeps) {
    this.#deps = deps
  }

  /** Creates under way; the hot pool waits for 0. */
  get creating(): number {
    return this.#creating
  }

  list(): CapsuleRecord[] {
    return [...this.#entries.values()].map((entry) => entry.record)
  }

  get(capsuleId: string): CapsuleRecord | undefined {
    return this.#entries.get(capsuleId)?.record
  }

  /** Calls `listener` for every change from now on; returns how to stop. */
  watch(listener: (event: CapsuleEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Why a capsule cannot answer, when it cannot. */
  whyGone(capsuleId: string): AppError | undefined {
    const record = this.get(capsuleId)
    if (record === undefined) return new AppError('capsule_not_found', 'The capsule is not on this host.')
    if (record.exit !== undefined) return new AppError('guest_died', record.exit.message)
    if (!isUsable(record.state)) return new AppError('invalid_state', `The capsule is ${record.state}, not running.`)
    return undefined
  }

  /** The line to a running capsule's guest. @throws AppError `capsule_not_found`, `guest_died`, `invalid_state` */
  running(capsuleId: string): { readonly record: CapsuleRecord; readonly guest: Guest } {
    const gone = this.whyGone(capsuleId)
    if (gone !== undefined) throw gone
    const entry = this.#entries.get(capsuleId)
    if (entry?.guest === undefined) throw new AppError('invalid_state', 'The capsule has no running guest.')
    entry.record = { ...entry.record, lastActiveAtMs: Date.now() }
    return { record: entry.record, guest: entry.guest }
  }

  /** Idempotent by capsule id. @throws AppError `template_not_found`, `conflict`, `engine_failure`, `disk_full`, … */
  async create(input: CreateCapsuleInput): Promise<CapsuleRecord> {
    return await this.#mutex.run(input.capsuleId, async () => {
      const existing = this.get(input.capsuleId)
      if (existing?.state === 'running') return existing
      if (existing !== undefined) {
        throw new AppError('conflict', `The capsule exists already and is ${existing.state}.`)
      }
      this.#creating++
      try {
        return await this.#create(input)
      } finally {
        this.#creating--
        this.#deps.hotPool.wakeWhenQuiet()
      }
    })
  }

  /** Ends and removes a capsule with all its files. False when there was none. */
  async destroy(capsuleId: string): Promise<boolean> {
    return await this.#mutex.run(capsuleId, async () => {
      const entry = this.#entries.get(capsuleId)
      if (entry === undefined) return false
      await this.#move(entry, 'destroy')
      await this.#release(entry)
      const vmId = entry.record.resources?.vmId
      if (vmId !== undefined) await this.#deps.factory.removeFiles(vmId)
      await this.#deps.factory.removeFiles(capsuleId)
      this.#entries.delete(capsuleId)
      await this.#deps.journal.remove(capsuleId)
      this.#emit({ removed: entry.record.capsuleId })
      this.#deps.logger.info({ capsuleId }, 'capsule.destroyed')
      return true
    })
  }

  /** Takes up what the journal says was there: running guests go on, dead ones are recorded with what is known. */
  async adopt(records: readonly CapsuleRecord[]): Promise<void> {
    for (const record of records) {
      const entry: Entry = { record, guest: undefined }
      this.#entries.set(record.capsuleId, entry)
      if (record.state === 'starting' || record.state === 'pending') await this.#abandon(entry)
      else if (record.state === 'stopping') await this.destroy(record.capsuleId)
      else if (record.resources?.vm !== undefined && record.exit === undefined)
        await this.#adoptGuest(entry, record.resources)
    }
  }

  /** Leaves every guest running and drops the lines to them. */
  async detach(): Promise<void> {
    this.#detached = true
    for (const { guest, record } of this.#entries.values()) {
      await this.#deps.journal.put(record)
      guest?.client.close()
      await guest?.vm.detach()
    }
  }

  async destroyAll(): Promise<void> {
    await Promise.all([...this.#entries.keys()].map((id) => this.destroy(id)))
  }

  /** Boots, warms and saves a shape that has no snapshot yet, without making a capsule. */
  async prepareShape(shape: Shape): Promise<ShapeSnapshot> {
    const found = await this.#deps.shapes.find(shape)
    if (found !== undefined) return found
    return await this.#once(shape, async () => {
      const vmId = `shape-${randomBytes(8).toString('hex')}`
      const secret = newSecret()
      const guest = await this.#deps.factory.boot(vmId, shape, shape.image, secret, async () => {})
      try {
        return await this.#warmAndSave(shape, guest, secret, new StepTimer())
      } finally {
        guest.client.close()
        await this.#deps.factory.stop(guest.resources, guest.vm)
        await this.#deps.factory.removeFiles(vmId)
      }
    })
  }

  async #create(input: CreateCapsuleInput): Promise<CapsuleRecord> {
    const timer = new StepTimer()
    const shape = await this.#deps.shapes.describe(input)
    const entry: Entry = { record: this.#newRecord(input, shape), guest: undefined }
    this.#entries.set(input.capsuleId, entry)
    await using undo = new UndoStack()
    await undo.defer(async () => {
      await this.#release(entry)
      await this.#deps.factory.removeFiles(entry.record.resources?.vmId ?? input.capsuleId)
      this.#entries.delete(input.capsuleId)
      await this.#deps.journal.remove(input.capsuleId)
      this.#emit({ removed: input.capsuleId })
    })
    await this.#store(entry, {})
    const { guest, path } = await this.#obtainGuest(entry, shape, timer)
    entry.guest = guest
    const [agentVersion] = await Promise.all([
      this.#identify(guest, path, input, entry.record.secret),
      this.#deps.machine.slots.applyPolicy(guest.resources.slotIndex, input.egress),
    ])
    timer.mark('identify')
    await this.#store(entry, { resources: guest.resources, path, agentVersion, timings: timer.steps() })
    await this.#move(entry, 'started')
    undo.move()
    this.#onExit(entry, guest)
    this.#deps.logger.info(
      { capsuleId: input.capsuleId, shape: shape.key, path, ms: timer.totalMs(), generation: input.generation },
      'capsule.started',
    )
    return entry.record
  }

  async #identify(guest: Guest, path: CreatePath, input: CreateCapsuleInput, secret: string): Promise<string> {
    if (path === 'hot') await guest.vm.resume()
    const died = guest.vm.exited.then((exit) => {
      throw new AppError('guest_died', exit.message)
    })
    died.catch(() => {}) // it matters only while the guest is asked
    return await Promise.race([identify(guest.client, input, secret), died])
  }

  async #obtainGuest(entry: Entry, shape: Shape, timer: StepTimer): Promise<{ guest: Guest; path: CreatePath }> {
    const claimed = await this.#claimGuest(entry, shape, timer)
    if (claimed !== undefined) return claimed
    return await this.#admission.run(async () => {
      timer.mark('queue')
      // While this create waited its turn, the hot pool may have got a guest or another create the shape's snapshot.
      return (await this.#claimGuest(entry, shape, timer)) ?? (await this.#startGuest(entry, shape, timer))
    })
  }

  async #claimGuest(entry: Entry, shape: Shape, timer: StepTimer) {
    const hot = this.#deps.hotPool.take(shape)
    if (hot === undefined) return undefined
    entry.guest = hot
    await this.#store(entry, { resources: hot.resources })
    await this.#deps.machine.slots.rename(hot.resources.slotIndex, entry.record.capsuleId)
    timer.mark('claim')
    return { guest: hot, path: 'hot' as const }
  }

  async #startGuest(entry: Entry, shape: Shape, timer: StepTimer): Promise<{ guest: Guest; path: CreatePath }> {
    for (;;) {
      const snapshot = await this.#deps.shapes.find(shape)
      if (snapshot !== undefined) return await this.#restoreGuest(entry, snapshot, timer)
      const booting = this.#coldBoots.get(shape.key)
      if (booting === undefined) return await this.#bootGuest(entry, shape, timer)
      await booting.catch(() => {}) // its own caller reports why; this one tries for itself
      timer.mark('wait')
    }
  }

  async #restoreGuest(
    entry: Entry,
    snapshot: ShapeSnapshot,
    timer: StepTimer,
  ): Promise<{ guest: Guest; path: CreatePath }> {
    const { shape } = snapshot
    const guest = await this.#deps.factory.restore(
      entry.record.capsuleId,
      shape,
      shape.image,
      snapshot.secret,
      snapshot.files,
      async (resources) => await this.#store(entry, { resources }),
    )
    entry.guest = guest
    timer.mark('restore')
    this.#deps.hotPool.offer(snapshot, 0)
    return { guest, path: 'restore' }
  }

  async #bootGuest(entry: Entry, shape: Shape, timer: StepTimer): Promise<{ guest: Guest; path: CreatePath }> {
    return await this.#once(shape, async () => {
      const secret = newSecret()
      const guest = await this.#deps.factory.boot(
        entry.record.capsuleId,
        shape,
        shape.image,
        secret,
        async (resources) => await this.#store(entry, { resources }),
      )
      entry.guest = guest
      const snapshot = await this.#warmAndSave(shape, guest, secret, timer)
      this.#deps.hotPool.offer(snapshot, 0)
      return { guest, path: 'cold' as const }
    })
  }

  async #warmAndSave(shape: Shape, guest: Guest, secret: string, timer: StepTimer): Promise<ShapeSnapshot> {
    await guest.client.waitHealthy(BOOT_TIMEOUT_MS)
    timer.mark('boot')
    const agentVersion = await identifyWaiting(guest.client, secret)
    await warmUp(guest.client)
    timer.mark('warm')
    const snapshot = await this.#deps.shapes.save(shape, guest, secret, agentVersion)
    timer.mark('snapshot')
    return snapshot
  }

  /** One cold boot per shape at a time: the others wait for its snapshot. */
  async #once<T>(shape: Shape, boot: () => Promise<T>): Promise<T> {
    const running = boot()
    this.#coldBoots.set(shape.key, running)
    try {
      return await running
    } finally {
      this.#coldBoots.delete(shape.key)
    }
  }

  #newRecord(input: CreateCapsuleInput, shape: Shape): CapsuleRecord {
    const now = Date.now()
    return {
      capsuleId: input.capsuleId,
      teamId: input.teamId,
      template: shape.template,
      vcpus: input.vcpus,
      memoryMib: input.memoryMib,
      diskSizeMib: input.diskSizeMib,
      state: 'starting',
      generation: input.generation,
      resources: undefined,
      secret: newSecret(),
      egress: input.egress,
      engine: this.#deps.machine.engine.name,
      engineVersion: this.#deps.machine.engineVersion,
      kernelVersion: shape.image.kernelVersion,
      layers: shape.image.layers,
      agentVersion: '',
      path: 'cold',
      timings: [],
      createdAtMs: now,
      lastActiveAtMs: now,
      exit: undefined,
    }
  }

  #onExit(entry: Entry, guest: Guest): void {
    const { capsuleId } = entry.record
    const record = async (exit: VmExit): Promise<void> => {
      if (this.#detached || entry.guest !== guest || this.#entries.get(capsuleId) !== entry) return
      await this.#recordExit(entry, exit)
    }
    void guest.vm.exited
      .then((exit) => this.#mutex.run(capsuleId, () => record(exit)))
      .catch((error: unknown) => this.#deps.logger.error({ err: error, capsuleId }, 'capsule.exit_not_recorded'))
  }

  /** The guest is gone by itself: keep its disk and say why; give the rest back to the machine. */
  async #recordExit(entry: Entry, exit: VmExit): Promise<void> {
    this.#deps.logger.warn(
      { capsuleId: entry.record.capsuleId, cause: exit.cause, reason: exit.message },
      'capsule.exited',
    )
    await this.#release(entry)
    await this.#store(entry, { exit })
    if (nextState(entry.record.state, 'exited') !== undefined) await this.#move(entry, 'exited')
  }

  async #adoptGuest(entry: Entry, resources: VmResources): Promise<void> {
    const guest = await this.#deps.factory.adopt(resources, entry.record.secret)
    if (guest === undefined) {
      await this.#recordExit(entry, {
        cause: 'unknown',
        message: 'The guest ended while its host agent was not running.',
        exitCode: undefined,
        signal: undefined,
        consoleTail: '',
        atMs: Date.now(),
      })
      return
    }
    entry.guest = guest
    await this.#deps.machine.slots.applyPolicy(resources.slotIndex, entry.record.egress)
    if ((await guest.vm.status()) === 'paused') await guest.vm.resume()
    this.#onExit(entry, guest)
    this.#deps.logger.info({ capsuleId: entry.record.capsuleId }, 'capsule.adopted')
  }

  /** A create that died half-way left nobody waiting for it: its caller asks again. */
  async #abandon(entry: Entry): Promise<void> {
    if (entry.record.resources !== undefined) {
      entry.guest = await this.#deps.factory.adopt(entry.record.resources, entry.record.secret)
    }
    await this.destroy(entry.record.capsuleId)
  }

  async #release(entry: Entry): Promise<void> {
    const { guest } = entry
    entry.guest = undefined
    guest?.client.close()
    const resources = guest?.resources ?? entry.record.resources
    if (resources !== undefined) await this.#deps.factory.stop(resources, guest?.vm)
  }

  async #move(entry: Entry, command: CapsuleCommand): Promise<void> {
    const state: CapsuleState | undefined = nextState(entry.record.state, command)
    if (state === undefined) {
      throw new AppError('invalid_state', `A capsule that is ${entry.record.state} cannot take "${command}".`)
    }
    await this.#store(entry, { state })
  }

  async #store(entry: Entry, change: Partial<CapsuleRecord>): Promise<void> {
    entry.record = { ...entry.record, ...change }
    await this.#deps.journal.put(entry.record)
    this.#emit({ record: entry.record })
  }

  #emit(event: CapsuleEvent): void {
    for (const listener of this.#listeners) listener(event)
  }
}

function newSecret(): string {
  return randomBytes(32).toString('base64url')
}
