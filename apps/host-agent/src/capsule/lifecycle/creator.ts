import { randomBytes } from 'node:crypto'
import { AppError, UndoStack } from '@wrenn/base'
import type { Hardware } from '@wrenn/vmm'
import { type Context, planOf, release, watchExit } from '../context.js'
import { tryToTrustEdge, withAuthority } from '../edge.js'
import {
  BOOT_TIMEOUT_MS,
  type Guest,
  type GuestPlan,
  identify,
  identifyFromSnapshot,
  identifyWaiting,
  newSecret,
  unlessItDies,
  unrecordedPlan,
  untilReady,
  warmUp,
} from '../guest/index.js'
import { type Admission, isCurrent, type Shape, type ShapeSnapshot } from '../pool/index.js'
import { hardwareOf } from '../state/index.js'
import { StepTimer } from '../step-timer.js'
import type { Entry } from '../table.js'
import type { CapsuleRecord, CreateCapsuleInput, CreatePath, VmResources } from '../types.js'
import type { Snapshot, Snapshots } from './snapshots.js'

const WAY_OUT =
  'A new capsule starts from the memory of a snapshot only: make the snapshot anew, of a capsule that was started from its disk.'

const MOST_BOOTS = 2

interface Boot {
  readonly boot: () => Promise<Guest>
  /** Gives back everything that the guest held. */
  readonly end: (guest: Guest) => Promise<void>
  readonly secret: string
  readonly timer: StepTimer
}

/** Makes capsules: from a waiting guest, from a shape's snapshot, by booting a shape for the first time, or from a user's snapshot. */
export class Creator {
  readonly #context: Context
  readonly #admission: Admission
  readonly #snapshots: Snapshots
  readonly #coldBoots = new Map<string, Promise<unknown>>()

  constructor(context: Context, admission: Admission, snapshots: Snapshots) {
    this.#context = context
    this.#admission = admission
    this.#snapshots = snapshots
  }

  /**
   * Makes a running capsule, from the hot pool, a snapshot or a boot, whichever is the fastest that there is.
   * @throws as `CapsuleManager.create`
   */
  async create(wish: CreateCapsuleInput): Promise<CapsuleRecord> {
    const input = { ...wish, egress: await withAuthority(wish.egress) }
    const { snapshotId } = input
    if (snapshotId === undefined) return await this.#fromTemplate(input)
    return await this.#snapshots.using(snapshotId, (snapshot) => this.#fromSnapshot(input, snapshot))
  }

  /** Boots, warms and saves a shape that has no snapshot yet, without making a capsule. */
  async prepareShape(shape: Shape): Promise<ShapeSnapshot> {
    const { shapes, factory } = this.#context
    const found = await shapes.find(shape)
    if (found !== undefined) return found
    return await this.#once(shape, async () => {
      const vmId = `shape-${randomBytes(8).toString('hex')}`
      const secret = newSecret()
      const { hardware, image } = shape
      const boot = () => factory.boot(unrecordedPlan(vmId, { spec: shape, hardware, image, secret }))
      const end = async (guest: Guest): Promise<void> => {
        guest.client.close()
        await factory.stop(guest.resources, guest.vm)
        await factory.removeFiles(vmId)
      }
      const { guest, snapshot } = await this.#bootAndSave(shape, {
        boot,
        end,
        secret,
        timer: new StepTimer(this.#context.tracer),
      })
      await end(guest)
      return snapshot
    })
  }

  /**
   * Makes a shape's snapshot anew, and its waiting guests after it (at least `minimum`), because the engine was replaced by another
   * version; meanwhile creates use what the earlier one left. Never rejects: the next create of the shape tries again.
   */
  async renewShape(shape: Shape, minimum = 0): Promise<void> {
    if (this.#coldBoots.has(shape.key)) return
    const { logger, tracer } = this.#context
    const prepared = tracer.apart(() => this.#admission.run(() => this.prepareShape(shape)))
    await prepared
      .then((snapshot) => this.#offer(snapshot, minimum))
      .catch((error: unknown) => logger.error({ err: error, shape: shape.key }, 'shape.not_renewed'))
  }

  #renewUnlessCurrent(used: ShapeSnapshot | undefined, shape: Shape): void {
    if (used !== undefined && used.key !== shape.key) void this.renewShape(shape)
  }

  async #fromTemplate(input: CreateCapsuleInput): Promise<CapsuleRecord> {
    const { shapes, states, machine } = this.#context
    const shape = await shapes.describe(input)
    const record = {
      ...newRecord(input, this.#context.bootId),
      template: shape.template,
      engine: machine.engine.name,
      engineVersion: await machine.engine.version(),
      kernelVersion: shape.image.kernelVersion,
      image: states.store(shape.image),
    }
    return await this.#make(record, input, async (entry, timer) => {
      const { guest, path } = await this.#obtainGuest(entry, shape, timer)
      entry.guest = guest
      if (path === 'hot') await guest.vm.resume()
      return { guest, path, identified: identify(guest.client, input, entry.record.secret) }
    })
  }

  async #fromSnapshot(input: CreateCapsuleInput, { snapshotId, manifest }: Snapshot): Promise<CapsuleRecord> {
    const { states, factory, machine, reach } = this.#context
    requireShapeOf(manifest, input)
    const dir = `snapshots/${snapshotId}`
    await states.usable(dir, WAY_OUT)
    const { template, engine, kernelVersion, image } = manifest
    const engineVersion = await machine.engine.version()
    const base = { ...newRecord(input, this.#context.bootId), snapshotId }
    const record = { ...base, template, engine, engineVersion, kernelVersion, image, secret: manifest.secret }
    return await this.#make(record, input, async (entry, timer) => {
      const guest = await this.#admission.run(async () => {
        timer.mark('queue')
        const plan = this.#planOf(entry, hardwareOf(manifest))
        return await factory.restore(plan, states.files(dir))
      })
      entry.guest = guest
      timer.mark('restore')
      reach('create:restored')
      const secret = newSecret()
      const identified = identifyFromSnapshot(guest.client, input, secret).then(async (agentVersion) => {
        await this.#context.table.store(entry, { secret })
        return agentVersion
      })
      return { guest, path: 'restore', identified }
    })
  }

  async #make(
    record: CapsuleRecord,
    input: CreateCapsuleInput,
    start: (
      entry: Entry,
      timer: StepTimer,
    ) => Promise<{ readonly guest: Guest; readonly path: CreatePath; readonly identified: Promise<string> }>,
  ): Promise<CapsuleRecord> {
    const { table, machine, factory, reach, logger } = this.#context
    const { capsuleId } = input
    const timer = new StepTimer(this.#context.tracer)
    const entry = table.add(record)
    await using undo = new UndoStack()
    await undo.defer(async () => {
      await release(entry, this.#context)
      await factory.removeFiles(capsuleId)
      await table.remove(entry)
    })
    await table.store(entry, {})
    reach('create:begun')
    const { guest, path, identified } = await start(entry, timer)
    const trusted = async (): Promise<string> => {
      const version = await identified
      await tryToTrustEdge(guest, input, logger)
      return version
    }
    const [agentVersion] = await Promise.all([
      unlessItDies(guest, trusted()),
      machine.slots.applyPolicy(guest.resources.slotIndex, input.egress),
    ])
    timer.mark('identify')
    reach('create:identified')
    await table.move(entry, 'started', { resources: guest.resources, path, agentVersion, timings: timer.steps() })
    reach('create:started')
    undo.move()
    watchExit(entry, guest, this.#context)
    logger.info(
      { capsuleId, template: record.template, path, ms: timer.totalMs(), generation: input.generation },
      'capsule.started',
    )
    return entry.record
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
    const { hotPool, table, machine, factory, reach } = this.#context
    const hot = hotPool.take(shape)
    if (hot === undefined) return undefined
    const { capsuleId } = entry.record
    entry.guest = hot
    await table.store(entry, { resources: hot.resources })
    const guest = await factory.claimFiles(hot, capsuleId)
    entry.guest = guest
    await table.store(entry, { resources: guest.resources })
    await machine.slots.rename(guest.resources.slotIndex, capsuleId)
    timer.mark('claim')
    reach('create:claimed')
    this.#renewUnlessCurrent(hotPool.snapshotOf(shape), shape)
    return { guest, path: 'hot' as const }
  }

  async #startGuest(entry: Entry, shape: Shape, timer: StepTimer): Promise<{ guest: Guest; path: CreatePath }> {
    for (;;) {
      const snapshot = await this.#context.shapes.findLoadable(shape)
      const restored = snapshot && (await this.#restoreGuest(entry, snapshot, timer))
      if (restored !== undefined) return restored
      const booting = this.#coldBoots.get(shape.key)
      if (booting === undefined) return await this.#bootGuest(entry, shape, timer)
      await booting.catch(() => {}) // its own caller reports why; this one tries for itself
      timer.mark('wait')
    }
  }

  /** `undefined` when a snapshot of another version of the engine does not load after all: the shape is then booted anew. */
  async #restoreGuest(
    entry: Entry,
    snapshot: ShapeSnapshot,
    timer: StepTimer,
  ): Promise<{ guest: Guest; path: CreatePath } | undefined> {
    const { factory, shapes, reach } = this.#context
    const plan = { ...this.#planOf(entry, snapshot.hardware), secret: snapshot.secret }
    const guest = await factory.restore(plan, snapshot.files).catch(async (error: unknown) => {
      if (isCurrent(snapshot) || !AppError.is(error, 'state_not_loadable')) throw error
      await shapes.discard(snapshot)
      return undefined
    })
    if (guest === undefined) return undefined
    entry.guest = guest
    timer.mark('restore')
    reach('create:restored')
    this.#offer(snapshot)
    this.#renewUnlessCurrent(snapshot, snapshot.shape)
    return { guest, path: 'restore' }
  }

  async #bootGuest(entry: Entry, shape: Shape, timer: StepTimer): Promise<{ guest: Guest; path: CreatePath }> {
    return await this.#once(shape, async () => {
      const { factory } = this.#context
      const secret = newSecret()
      const plan = { ...this.#planOf(entry, shape.hardware), secret }
      const boot = async (): Promise<Guest> => {
        entry.guest = await factory.boot(plan)
        return entry.guest
      }
      const end = async (): Promise<void> => {
        await release(entry, this.#context)
        // Its slot may be somebody else's from now on.
        await this.#context.table.store(entry, { resources: undefined })
        await factory.removeFiles(entry.record.capsuleId)
      }
      const { guest, snapshot } = await this.#bootAndSave(shape, { boot, end, secret, timer })
      this.#offer(snapshot)
      return { guest, path: 'cold' as const }
    })
  }

  /**
   * Boots a shape and saves it. A kernel that panics before anybody's code has run is none of its user's doing (an emulated CPU was
   * seen to do it about once in thousands of boots), so that it is ended and booted once more. Whatever fails otherwise is ended.
   */
  async #bootAndSave(
    shape: Shape,
    { boot, end, secret, timer }: Boot,
  ): Promise<{ guest: Guest; snapshot: ShapeSnapshot }> {
    for (let boots = 1; ; boots++) {
      const guest = await boot()
      try {
        return { guest, snapshot: await unlessItDies(guest, this.#warmAndSave(shape, guest, secret, timer)) }
      } catch (error) {
        const exit = AppError.is(error, 'guest_died') ? await guest.vm.exited : undefined
        await end(guest)
        if (exit?.cause !== 'guest_panic' || boots === MOST_BOOTS) throw error
        this.#context.logger.warn({ shape: shape.key, reason: exit.message }, 'shape.panicked')
      }
    }
  }

  async #warmAndSave(shape: Shape, guest: Guest, secret: string, timer: StepTimer): Promise<ShapeSnapshot> {
    await guest.client.waitHealthy(BOOT_TIMEOUT_MS)
    timer.mark('boot')
    const agentVersion = await identifyWaiting(guest.client, secret)
    await warmUp(guest.client)
    if (shape.image.ready !== undefined) await untilReady(guest.client, shape.image.ready)
    timer.mark('warm')
    const snapshot = await this.#context.shapes.save(shape, guest, secret, agentVersion)
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

  /** An image of a registry is booted for a build, rarely for more: no guest is to wait for that. */
  #offer(snapshot: ShapeSnapshot, minimum = 0): void {
    if (snapshot.shape.image.isFetched !== true) this.#context.hotPool.offer(snapshot, minimum)
  }

  #planOf(entry: Entry, hardware: Hardware): GuestPlan {
    const onResources = async (resources: VmResources) => await this.#context.table.store(entry, { resources })
    return planOf(entry, this.#context, { files: 0, hardware, onResources })
  }
}

/** A memory snapshot fixes the size of its machine. */
function requireShapeOf(manifest: Snapshot['manifest'], input: CreateCapsuleInput): void {
  const { vcpus, memoryMib, diskSizeMib } = manifest
  if (input.vcpus === vcpus && input.memoryMib === memoryMib && input.diskSizeMib === diskSizeMib) return
  throw new AppError(
    'invalid_request',
    `A capsule from this snapshot has ${vcpus} vCPUs, ${memoryMib} MiB of memory and ${diskSizeMib} MiB of disk, as it was saved.`,
  )
}

type RecordDraft = Omit<CapsuleRecord, 'template' | 'engine' | 'engineVersion' | 'kernelVersion' | 'image'>

function newRecord(input: CreateCapsuleInput, bootId: string): RecordDraft {
  const now = Date.now()
  return {
    capsuleId: input.capsuleId,
    teamId: input.teamId,
    vcpus: input.vcpus,
    memoryMib: input.memoryMib,
    diskSizeMib: input.diskSizeMib,
    state: 'starting',
    generation: input.generation,
    resources: undefined,
    files: 0,
    secret: newSecret(),
    hostname: input.hostname,
    egress: input.egress,
    egressRevision: input.egressRevision,
    agentVersion: '',
    path: 'cold',
    timings: [],
    createdAtMs: now,
    lastActiveAtMs: now,
    exit: undefined,
    bootId,
  }
}
