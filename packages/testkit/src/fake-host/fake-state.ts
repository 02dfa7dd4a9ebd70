import { randomUUID } from 'node:crypto'
import { EventEmitter } from 'node:events'
import { join } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { AppError, hostIds, KeyedMutex } from '@wrenn/base'
import type {
  ArchivedTemplateSchema,
  CapsuleSchema,
  CollectMetricsResponse_PointSchema,
  CollectTrafficResponse_GuestSchema,
  CreateCapsuleRequest,
  FileChangeSchema,
  SnapshotSchema,
} from '@wrenn/protocol/host'
import { FakeCapsule, type FakeExit } from './fake-capsule.js'
import { FakeCapture } from './fake-capture.js'
import { FakeFaults, type FakeOperation, type FaultPoint, type Held } from './fake-faults.js'

export type FakeChange =
  | { readonly capsule: MessageInitShape<typeof CapsuleSchema> }
  | { readonly removed: string }
  | 'keepalive'

export interface FakeSnapshot {
  readonly capture: FakeCapture
  readonly record: MessageInitShape<typeof SnapshotSchema> & {
    readonly snapshotId: string
    readonly sourceCapsuleId: string
    readonly vcpus: number
    readonly memoryMib: number
    readonly diskSizeMib: number
    readonly template: string
  }
}

/** A capsule as it left its host. */
export interface FakeStoredState {
  readonly capsuleId: string
  readonly capture: FakeCapture
  readonly request: CreateCapsuleRequest | undefined
  readonly of: Pick<FakeCapsule, 'path' | 'parentId' | 'snapshotId' | 'pauseReason' | 'pausedAtMs'>
  /** By what it was encrypted: another key does not open it. */
  readonly key: string
}

/** What GetActivity is to say of a capsule, instead of what is so. */
export interface FakeActivity {
  readonly reasons?: readonly string[]
  readonly cpuPct?: number
  readonly lastActiveAtMs?: number
}

/** An image of a registry or a file that the fake host can make a template. */
export interface FakeImage {
  readonly digest: string
  readonly env?: string[]
  readonly user?: string
  readonly workingDir?: string
  readonly entrypoint?: string[]
  readonly command?: string[]
  readonly ports?: number[]
  /** Of an archive of a template. */
  readonly archived?: MessageInitShape<typeof ArchivedTemplateSchema>
  /** Who may read it; absent: everybody. */
  readonly login?: { readonly username: string; readonly password: string }
}

/** What CollectMetrics is to say that a capsule used in five seconds. */
export type FakePoint = MessageInitShape<typeof CollectMetricsResponse_PointSchema> & { readonly atSec: bigint }

/** What CollectTraffic is to say of a guest. */
export type FakeTraffic = MessageInitShape<typeof CollectTrafficResponse_GuestSchema> & { readonly guestId: string }

/** What a fake host knows; it survives a restart of its server. */
export class FakeHostState {
  hostId: string = hostIds.create()
  readonly capsules = new Map<string, FakeCapsule>()
  readonly snapshots = new Map<string, FakeSnapshot>()
  /** States of capsules that left their host; hosts of one platform have it together. */
  store = new Map<string, FakeStoredState>()
  readonly changes = new EventEmitter<{ change: [FakeChange] }>().setMaxListeners(0)
  /** What ListTemplates says. */
  templates: readonly { readonly name: string; readonly aliases: readonly string[] }[] = [
    { name: 'minimal', aliases: ['base'] },
    { name: 'python', aliases: [] },
  ]
  /** Lifecycle calls of one capsule come one after another. */
  readonly locks = new KeyedMutex()
  readonly faults = new FakeFaults()
  /** Images of registries, by the reference that is asked for. */
  readonly images = new Map<string, FakeImage>()
  /** Images of files, by the SHA-256 of the file and by what they are called in it. */
  readonly imageFiles = new Map<string, Readonly<Record<string, FakeImage>>>()
  /** Digests of files that came once. */
  readonly takenFiles = new Set<string>()
  /** Whether capsules run before their memory is whole, where that may be: they have no durable state until they were paused. */
  loadsLazily = false
  /** Names that fetched images have as templates. */
  readonly fetched = new Set<string>()
  /** Capsules whose guests give no sign: what asks them is refused as the host agent does after its patience. */
  readonly unreachable = new Set<string>()
  /** By capsule id. */
  readonly activity = new Map<string, FakeActivity>()
  /** By capsule id, with the end of the last window that has passed. */
  readonly used = new Map<string, readonly FakePoint[]>()
  /** By the guest's id. */
  readonly traffic = new Map<string, FakeTraffic>()
  usedUntilSec = 0
  /** What GetHost says. */
  notReadyReason = ''
  memoryAvailableBytes = 4n * 2n ** 30n
  poolFreeBytes = 32n * 2n ** 30n
  /** What GetPoolUsage says in place of what there is: bytes of each team, or that nothing is measured yet. */
  poolUsage: ReadonlyMap<string, bigint> | 'unmeasured' | undefined
  /** Comparisons with a capsule as it was, which pages go on with. */
  readonly comparisons = new Map<string, readonly MessageInitShape<typeof FileChangeSchema>[]>()
  /** Tunnels to capsules that were asked for while they ran. */
  tunnels = 0
  /** Whether it lends its guests' address, as host agents of today do. */
  hasLeases = true
  /** Where this machine serves what clients ask of guest agents; `undefined`: nobody does. */
  agentPort: number | undefined
  /** Calls of CreateCapsule that made one. */
  creates = 0
  protected readonly dir: string
  #gate: Promise<void> | undefined
  #openGate: () => void = () => {}

  constructor(dir: string) {
    this.dir = dir
  }

  /** Creates that arrive from now on wait until the returned function is called. */
  holdCreates(): () => void {
    this.#gate = new Promise((resolve) => {
      this.#openGate = resolve
    })
    return () => {
      this.#gate = undefined
      this.#openGate()
    }
  }

  async passGate(): Promise<void> {
    await this.#gate
  }

  /** The next operation of this kind waits at `point` until it is released, also when its caller is gone. */
  holdNext(operation: FakeOperation, point: FaultPoint = 'before'): Held {
    return this.faults.hold(operation, point)
  }

  /** The next operation of this kind fails: with nothing done (`before`), or done all the same (`after`). */
  failNext(
    operation: FakeOperation,
    error = new AppError('engine_failure', `The next ${operation} was asked to fail.`),
    point: FaultPoint = 'before',
  ): void {
    this.faults.hold(operation, point).release(error)
  }

  async addCapsule(id: string): Promise<FakeCapsule> {
    const capsule = await this.makeCapsule(id)
    this.capsules.set(id, capsule)
    return capsule
  }

  /** A capsule that the host does not list yet. */
  async makeCapsule(id: string): Promise<FakeCapsule> {
    return await FakeCapsule.create(id, join(this.dir, id))
  }

  /** The capsule must stand still. */
  async capture(capsule: FakeCapsule): Promise<FakeCapture> {
    return await FakeCapture.take(capsule, this.#captureDir(capsule))
  }

  async copyCapture(capsule: FakeCapsule, capture: FakeCapture): Promise<FakeCapture> {
    return await capture.copy(this.#captureDir(capsule))
  }

  #captureDir({ id }: FakeCapsule): string {
    return join(this.dir, 'captures', `${id}-${randomUUID()}`)
  }

  announce(capsule: FakeCapsule): void {
    this.changes.emit('change', { capsule: capsule.message() })
  }

  /** Removes a capsule with its files, processes and checkpoints. */
  async remove(id: string): Promise<boolean> {
    const capsule = this.capsules.get(id)
    if (capsule === undefined) return false
    this.capsules.delete(id)
    await capsule.dispose()
    this.changes.emit('change', { removed: id })
    return true
  }

  /** The guest dies by itself. */
  die(id: string, exit: FakeExit): void {
    const capsule = this.capsules.get(id)
    if (capsule === undefined) return
    capsule.die(exit)
    this.announce(capsule)
  }
}
