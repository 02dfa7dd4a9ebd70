import { mkdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError, errorText, hostIds, type Logger, noSteps, noTracer, stepsFromFile, type Tracer } from '@wrenn/base'
import { type ObjectStoreConfig, Pace, SharedStore, StateStore } from '@wrenn/object-store'
import { type HostAddress, parseHostAddress } from '@wrenn/protocol'
import { CheckpointDiffer, diffDisks } from './capsule/diff/index.js'
import { CapsuleMetrics, GuestFactory, patienceOf } from './capsule/guest/index.js'
import { HostStatus } from './capsule/host-status.js'
import { Journal } from './capsule/journal.js'
import { GarbageCollector } from './capsule/lifecycle/index.js'
import { CapsuleManager } from './capsule/manager.js'
import { HotPool, Renewal, type Shape, ShapeStore } from './capsule/pool/index.js'
import { DURABLE, type LazyVault, type OpenVault } from './capsule/state/index.js'
import type { CapsuleRecord, CapsuleSpec } from './capsule/types.js'
import { Traffic, UsageSampler } from './capsule/usage/index.js'
import type { HostAgentConfig } from './config.js'
import { makeDurable, verifyDurable } from './host/durability/index.js'
import { dataRanges } from './host/extents/index.js'
import { LOADER_FILES, type Loaders } from './host/loader/index.js'
import type { SlotUse } from './host/network/index.js'
import { closePool } from './host/pool/index.js'
import type { PressureWatch } from './host/pressure/index.js'
import { UsageReader } from './host/usage/index.js'
import { readHostId, writeHostId } from './identity/host-id.js'
import { type HostIdentity, IDENTITY_FILE, readIdentity } from './identity/identity-file.js'
import { IdentityRenewal } from './identity/renewal.js'
import { type OpenMachine, openMachine } from './machine.js'
import { watchPressure } from './pressure.js'
import type { ServiceParts } from './rpc/handlers.js'
import { startServer } from './rpc/server.js'
import { createHostService } from './rpc/service.js'
import { createTunnelServer } from './rpc/tunnel.js'
import { version } from './version.js'

/** The shape every host keeps ready: what a create without options asks for. */
const DEFAULT_SHAPE: CapsuleSpec = { template: 'minimal', vcpus: 1, memoryMib: 512, diskSizeMib: 5120 }
const HOUSEKEEPING_MS = 5_000
const PRUNE_EVERY_MS = 3600_000
const MEASURE_EVERY_MS = 60_000
/** Of one CPU: with many capsules the rounds of measuring are further apart. */
const MEASURE_CPU_SHARE = 0.005
const MEASURE_AT_LEAST_EVERY_MS = 15 * 60_000

/** A host agent that answers, though perhaps not ready yet. */
export interface RunningAgent {
  /** Rejects when the machine could not be brought up. */
  readonly ready: Promise<void>
  /** Leaves capsules running, or ends them first. Gives everything back to the machine when none is left. */
  stop(endCapsules: boolean): Promise<void>
}

/** Answers RPCs at once (not ready, with the reason) and brings the machine up behind them. */
export async function serve(config: HostAgentConfig, logger: Logger, tracer: Tracer = noTracer): Promise<RunningAgent> {
  await mkdir(dirname(config.socketPath), { recursive: true, mode: 0o711 })
  const identity = await readIdentity(config.dir)
  const status = new HostStatus(identity?.hostId ?? (await hostId(config.dir)), version)
  let parts: ServiceParts | undefined
  const ready = (): ServiceParts => {
    if (parts === undefined) throw status.refusal()
    return parts
  }
  const service = createHostService({ logger, status, parts: ready })
  const server = await startServer(
    service,
    createTunnelServer(() => ready().manager),
    {
      socketPath: config.socketPath,
      uid: config.socketUid,
      gid: config.socketGid,
      ...(identity === undefined ? {} : { remote: { ...identity, listen: listenOf(identity), logger } }),
      tracer,
    },
  )
  const renewal =
    identity &&
    new IdentityRenewal({ dir: config.dir, identity, logger, onRenewed: (renewed) => server.renew(renewed) })
  renewal?.start()
  const stopping = new AbortController()
  const agent = new Agent({ config, logger, tracer, status, signal: stopping.signal })
  const broughtUp = agent.bringUp((made) => {
    parts = made
  })
  return {
    ready: broughtUp,
    async stop(endCapsules) {
      // To end capsules they must first be taken up: a start under way is then finished, not broken off.
      if (!endCapsules) stopping.abort()
      await broughtUp.catch(() => {}) // reported by whoever awaits `ready`
      await agent.shutDown(endCapsules)
      await renewal?.stop()
      await server[Symbol.asyncDispose]()
    },
  }
}

interface AgentDeps {
  readonly config: HostAgentConfig
  readonly logger: Logger
  readonly tracer: Tracer
  readonly status: HostStatus
  readonly signal: AbortSignal
}

class Agent {
  readonly #config: HostAgentConfig
  readonly #logger: Logger
  readonly #tracer: Tracer
  readonly #status: HostStatus
  readonly #signal: AbortSignal
  #machine: OpenMachine | undefined
  #manager: CapsuleManager | undefined
  #hotPool: HotPool | undefined
  #differ: CheckpointDiffer | undefined
  #renewal: Renewal | undefined
  #housekeeping: NodeJS.Timeout | undefined
  #pruning: NodeJS.Timeout | undefined
  #pressure: PressureWatch | undefined
  #measuring: Measuring | undefined
  #usage: UsageSampler | undefined
  /** Capsules of the journal; before it was read there might be some. */
  #journaled = 1

  constructor({ config, logger, tracer, status, signal }: AgentDeps) {
    this.#config = config
    this.#logger = logger
    this.#tracer = tracer
    this.#status = status
    this.#signal = signal
  }

  async bringUp(onParts: (parts: ServiceParts) => void): Promise<void> {
    const journal = new Journal(join(this.#config.dir, 'journal'), this.#logger)
    const records = await journal.open()
    this.#journaled = records.length
    const machine = await openMachine(this.#config, {
      logger: this.#logger,
      signal: this.#signal,
      inUse: slotsInUse(records),
      onProgress: (detail) => this.#status.setNotReady(detail),
    })
    this.#machine = machine
    const { manager, shapes, hotPool } = await this.#assemble(machine, journal)
    await machine.sweep(
      new Map([...vmsInUse(records), ...[...journal.unreadable].map((id) => [id, undefined] as const)]),
    )
    await manager.adopt(records)
    const metrics = new CapsuleMetrics(machine.pool.path)
    const differ = new CheckpointDiffer(manager.context, diffDisks)
    this.#differ = differ
    const garbage = new GarbageCollector(
      manager.context,
      (vmId) => hotPool.has(vmId) || vmId.startsWith('shape-') || journal.unreadable.has(vmId),
    )
    const reader = new UsageReader()
    const usage = this.#sampleUsage(machine, manager, reader)
    const traffic = new Traffic({
      records: () => manager.list(),
      readNet: (guest) => reader.readNet(guest),
      slots: machine.slots,
    })
    onParts({ manager, images: machine.images, metrics, usage, traffic, differ, garbage })
    this.#pressure = watchPressure(manager, machine, this.#config, this.#logger)
    await this.#prepareDefaultShape(machine, manager, shapes)
    machine.attachImageUses({
      layers: async () => await manager.layersInUse(),
      onRemoved: async (template) => await shapes.forgetTemplate(template),
    })
    this.#pruning = setInterval(() => void this.#pruneFetched(machine, manager, shapes), PRUNE_EVERY_MS)
    await this.#pruneFetched(machine, manager, shapes)
    this.#status.setNotReady(undefined)
    this.#logger.info({ engine: machine.engine.name, version: await machine.engine.version() }, 'host.ready')
  }

  async shutDown(endCapsules: boolean): Promise<void> {
    clearInterval(this.#housekeeping)
    clearInterval(this.#pruning)
    this.#measuring?.abort.abort()
    await this.#measuring?.ended
    await this.#usage?.stop()
    await this.#differ?.close() // an unmount would find its disks busy
    await this.#pressure?.[Symbol.asyncDispose]()
    await this.#hotPool?.close()
    if (endCapsules) await this.#manager?.destroyAll()
    await this.#manager?.detach()
    const left = this.#manager?.list().length ?? this.#journaled
    if (left > 0) await this.#machine?.close()
    else if (this.#machine !== undefined) await this.#machine.release()
    else await closePool(this.#config.dir) // stopped while it was coming up
  }

  async #assemble(machine: OpenMachine, journal: Journal) {
    const logger = this.#logger
    const tracer = this.#tracer
    const { stepFile } = this.#config
    const reach = stepFile === undefined ? noSteps : stepsFromFile(stepFile)
    const factory = new GuestFactory(machine, {
      logger,
      reach,
      tracer,
      patience: patienceOf(this.#config.guestSilenceMs),
    })
    const isBusy = (): boolean => (this.#manager?.creating ?? 0) > 0
    const hotPool = new HotPool(factory, { max: this.#config.hotPoolMax, busy: isBusy, logger, tracer })
    const shapes = new ShapeStore(machine, logger)
    const manager = new CapsuleManager({
      ...{ machine, journal, factory, shapes, hotPool, logger, tracer, makeDurable, verifyFiles: verifyDurable },
      openVault: vaultsIn(this.#config, machine.memory),
      bootId: await hostBootId(),
      reach,
    })
    this.#hotPool = hotPool
    this.#manager = manager
    this.#status.attach({ machine, manager, hotPool, engineReason: machine.engineReason })
    this.#housekeeping = setInterval(() => {
      hotPool.wake()
      void this.#renewal?.look()
    }, HOUSEKEEPING_MS)
    this.#measuring = repeatMeasuring(manager, logger)
    return { manager, shapes, hotPool }
  }

  /** Never rejects: what stays goes an hour later. */
  async #pruneFetched(machine: OpenMachine, manager: CapsuleManager, shapes: ShapeStore): Promise<void> {
    try {
      const layers = await manager.layersInUse()
      if (layers === undefined) return
      for (const template of await machine.pruneFetched(() => layers)) await shapes.forgetTemplate(template)
    } catch (error) {
      this.#logger.warn({ error: errorText(error) }, 'images.not_pruned')
    }
  }

  #sampleUsage(machine: OpenMachine, manager: CapsuleManager, reader: UsageReader): UsageSampler {
    const usage = new UsageSampler({
      records: () => manager.list(),
      read: (guest, diskPath) => reader.read(guest, diskPath),
      poolPath: machine.pool.path,
      logger: this.#logger,
    })
    usage.start()
    this.#usage = usage
    return usage
  }

  async #prepareDefaultShape(machine: OpenMachine, manager: CapsuleManager, shapes: ShapeStore): Promise<void> {
    const shape = await shapes.describe(DEFAULT_SHAPE)
    const { hotPoolMin } = this.#config
    const renew = (each: Shape) => manager.renewShape(each, each.family === shape.family ? hotPoolMin : 0)
    this.#renewal = new Renewal({ machine, shapes, renew, logger: this.#logger })
    const outdated = await this.#renewal.find() // the sweep takes away those that do not load
    await shapes.sweep(await machine.images.list())
    this.#renewal.begin(outdated)
    const layers = await manager.layersInUse()
    if (layers !== undefined) await machine.pruneLayers(() => layers)
    const loadable = await shapes.findLoadable(shape)
    if (loadable !== undefined) this.#hotPool?.offer(loadable, hotPoolMin)
    // It is being made anew: creates wait for that boot, or boot for themselves, and none is refused.
    if (loadable !== undefined || outdated.some(({ key }) => key === shape.key)) return
    this.#status.setNotReady('Booting the template minimal once; creates then restore its snapshot.')
    this.#hotPool?.offer(await manager.prepareShape(shape), hotPoolMin)
  }
}

interface Measuring {
  readonly abort: AbortController
  /** Nothing of the pool is looked at any more. */
  readonly ended: Promise<void>
}

/** Sizes of capsules, one round after the other until aborted. */
function repeatMeasuring(manager: CapsuleManager, logger: Logger): Measuring {
  const abort = new AbortController()
  const measure = async (): Promise<void> => {
    let pauseMs = MEASURE_EVERY_MS
    while (!abort.signal.aborted) {
      await delay(pauseMs, undefined, { signal: abort.signal, ref: false }).catch(() => {})
      if (abort.signal.aborted) return
      const before = process.cpuUsage()
      await manager
        .measure(abort.signal)
        .catch((error: unknown) => logger.warn({ error: errorText(error) }, 'capsules.not_measured'))
      const { user, system } = process.cpuUsage(before)
      const wantedMs = (user + system) / 1000 / MEASURE_CPU_SHARE
      pauseMs = Math.min(Math.max(wantedMs, MEASURE_EVERY_MS), MEASURE_AT_LEAST_EVERY_MS)
    }
  }
  return { abort, ended: measure() }
}

/** What teams have in the object store, where there is one. */
function vaultsIn(config: HostAgentConfig, loaders: Loaders): OpenVault | undefined {
  const { objectStore, objectStoreBytesPerSec, lazyResume } = config
  if (objectStore === undefined) return undefined
  const shared = new SharedStore(objectStore)
  const pace = new Pace(objectStoreBytesPerSec)
  return async (team) => {
    const states = new StateStore(await shared.open(), team, { pace })
    const canLoadLazily = lazyResume && (await loaders.obstacle()) === undefined
    return {
      ...(canLoadLazily && {
        lazily: lazyVault(loaders, states, { store: objectStore, pace: objectStoreBytesPerSec, team }),
      }),
      has: async (id, signal) => await states.has(id, signal),
      save: async (id, files, { signal }) => await states.save(id, files, { signal, dataRanges }),
      load: async (id, folder, options) => await states.load(id, folder, options),
    }
  }
}

/** How long a guest stands still for memory that does not come, before it ends and its capsule is what the store has. */
const STORE_SILENCE_MS = 15 * 60_000

function lazyVault(
  loaders: Loaders,
  states: StateStore,
  from: {
    readonly store: ObjectStoreConfig
    readonly pace: number | undefined
    readonly team: { readonly id: string; readonly key: Buffer }
  },
): LazyVault {
  return {
    load: async (id, folder, { signal }) => {
      const { sizeBytes } = await states.openFile(id, LOADER_FILES.memory, signal)
      // What proves that a memory is on the disk is of another disk.
      const result = await states.load(id, folder, { signal, except: [LOADER_FILES.memory, DURABLE] })
      await loaders.prepare(folder, sizeBytes)
      return result
    },
    start: async (stateId, folder) =>
      await loaders.start(folder, {
        store: from.store,
        bytesPerSec: from.pace,
        team: from.team.id,
        key: from.team.key.toString('base64'),
        stateId,
        giveUpMs: STORE_SILENCE_MS,
      }),
  }
}

function slotsInUse(records: readonly CapsuleRecord[]): Map<number, SlotUse> {
  const used = new Map<number, SlotUse>()
  for (const { resources, other, capsuleId: owner } of records) {
    for (const each of [resources, other]) if (each !== undefined) used.set(each.slotIndex, { vmId: each.vmId, owner })
  }
  return used
}

/** VM ids whose files belong to a record, with the process it knows; the capsule's own id counts for its files. */
function vmsInUse(records: readonly CapsuleRecord[]): Map<string, number | undefined> {
  const used = new Map<string, number | undefined>()
  for (const { capsuleId, resources, other } of records) {
    used.set(capsuleId, undefined)
    for (const each of [resources, other]) if (each !== undefined) used.set(each.vmId, each.vm?.pid)
  }
  return used
}

async function hostBootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
}

function listenOf({ listen }: HostIdentity): HostAddress {
  const address = parseHostAddress(listen)
  if (address !== undefined) return address
  throw new AppError(
    'invalid_config',
    `${IDENTITY_FILE}: ${listen} is no address to listen on; \`wrenn host join\` makes it anew.`,
  )
}

async function hostId(dir: string): Promise<string> {
  const known = await readHostId(dir)
  if (known !== undefined) return known
  const id = hostIds.create()
  await writeHostId(dir, id)
  return id
}
