import { AppError } from '@wrenn/base'
import { type Context, currentDir, dirs, requireReachable } from '../context.js'
import type { StateManifest } from '../state/index.js'
import { StepTimer } from '../step-timer.js'
import { capture, captureCheckpoint } from './capture.js'

const SAVE_BYTES = 64 * 2 ** 20

/** A template made of a capsule: new capsules start from it with its memory, processes and files. */
export interface Snapshot {
  readonly snapshotId: string
  readonly manifest: StateManifest
  readonly sizeBytes: number
  readonly durableAtMs: number | undefined
}

/** A snapshot's disk and the image that it lies on. */
export interface SnapshotFiles {
  readonly manifest: StateManifest
  readonly diskPath: string
  readonly basePath: string
}

/** Snapshots of this host, and who is starting from them right now. */
export class Snapshots {
  readonly #context: Context
  /** Creates that are cloning a snapshot's files at the moment, and exports. */
  readonly #readers = new Map<string, number>()
  /** Those that this run of the host agent has saved. */
  readonly #own = new Set<string>()

  constructor(context: Context) {
    this.#context = context
  }

  /**
   * Idempotent by id. With a checkpoint of the capsule: as it was then.
   * @throws AppError `capsule_not_found`, `checkpoint_not_found`, `invalid_state`, `disk_full`, `engine_failure`, `guest_unreachable`
   */
  async create(capsuleId: string, snapshotId: string, checkpointId?: string): Promise<Snapshot> {
    const { table, machine, reach, flusher, logger } = this.#context
    if (checkpointId === undefined && (await this.#describe(snapshotId)) === undefined) {
      // Before the capsule is held: whoever destroys or rolls it back because it cannot be reached need not wait.
      await requireReachable(table.require(capsuleId, 'snapshot'), 'A capsule from the snapshot')
    }
    return await table.exclusive(capsuleId, async () => {
      const made = await this.#describe(snapshotId)
      if (made !== undefined) return made
      const entry = table.require(capsuleId, 'snapshot')
      await machine.pool.ensureSpace(SAVE_BYTES)
      const timer = new StepTimer(this.#context.tracer)
      const dir = dirs.snapshot(snapshotId)
      reach('snapshot:begun')
      const { pauseWindowMs } = await (checkpointId === undefined
        ? capture(entry, this.#context, dir, { syncFiles: true, name: 'snapshot', timer })
        : captureCheckpoint(entry, this.#context, checkpointId, dir, timer))
      reach('snapshot:kept')
      this.#own.add(snapshotId)
      // Nobody resumes it, who would make this needless.
      flusher.enqueue(dir, async () => {}, { settleMs: 0 })
      const isOfGuest = checkpointId === undefined && entry.guest !== undefined
      await this.#context.sizes.measureSaved(dir, isOfGuest ? currentDir(entry) : undefined)
      logger.info({ capsuleId, snapshotId, ms: timer.totalMs(), pauseWindowMs }, 'capsule.snapshot')
      return await this.get(snapshotId)
    })
  }

  /** @throws AppError `template_not_found`, `snapshot_damaged` */
  async get(snapshotId: string): Promise<Snapshot> {
    const found = await this.#describe(snapshotId)
    if (found === undefined)
      throw new AppError('template_not_found', `There is no snapshot ${snapshotId} on this host.`)
    return found
  }

  /** @throws AppError `template_not_found`, `snapshot_damaged` unless its files are, byte by byte, what was saved */
  async verify(snapshotId: string): Promise<void> {
    const { states, verifyFiles } = this.#context
    const dir = dirs.snapshot(snapshotId)
    await this.using(snapshotId, async () => {
      await states.intact(dir)
      await states.verify(dir, verifyFiles, this.#own.has(snapshotId))
    })
  }

  /** Those that can be read; damaged ones are logged and left out. */
  async list(): Promise<Snapshot[]> {
    const { states, logger } = this.#context
    const found: Snapshot[] = []
    for (const id of await states.list(dirs.snapshots())) {
      const one = await this.#describe(id).catch((error: unknown) => {
        logger.error({ err: error, snapshotId: id }, 'snapshot.damaged')
        return undefined
      })
      if (one !== undefined) found.push(one)
    }
    return found
  }

  /** Clears up after a run of the host agent that ended at any moment. */
  async takeUp(): Promise<void> {
    const { states, flusher } = this.#context
    await states.removeDrafts(dirs.snapshots())
    for (const id of await states.list(dirs.snapshots())) {
      const dir = dirs.snapshot(id)
      if (!(await states.exists(dir))) await states.discard(dir) // of a removal by an earlier version that was broken off
    }
    for (const { snapshotId, durableAtMs } of await this.list()) {
      if (durableAtMs === undefined) flusher.enqueue(dirs.snapshot(snapshotId), async () => {}, { isLate: true })
    }
  }

  /** Keeps a snapshot's files while `use` starts from them. */
  async using<T>(snapshotId: string, use: (snapshot: Snapshot) => Promise<T>): Promise<T> {
    this.#count(snapshotId, 1)
    try {
      return await use(await this.get(snapshotId))
    } finally {
      this.#count(snapshotId, -1)
    }
  }

  /** What of it is made of its files, which stay meanwhile. @throws AppError `template_not_found`, `snapshot_damaged` */
  async *reading<T>(snapshotId: string, read: (files: SnapshotFiles) => AsyncIterable<T>): AsyncGenerator<T> {
    const { states } = this.#context
    this.#count(snapshotId, 1)
    try {
      const { manifest } = await this.get(snapshotId)
      const { diskPath } = states.files(dirs.snapshot(snapshotId))
      yield* read({ manifest, diskPath, basePath: states.path(manifest.image.basePath) })
    } finally {
      this.#count(snapshotId, -1)
    }
  }

  /** Bytes that became free, or `undefined` when there was none. @throws AppError `in_use` */
  async remove(snapshotId: string): Promise<number | undefined> {
    const { states, flusher, sizes } = this.#context
    this.#requireUnread(snapshotId)
    const dir = dirs.snapshot(snapshotId)
    const freed = (await states.exists(dir)) ? await sizes.freedBy(dir) : undefined
    this.#requireUnread(snapshotId) // measuring takes a while
    flusher.cancel(dir)
    await states.discard(dir)
    this.#own.delete(snapshotId)
    sizes.forget(dir)
    return freed
  }

  #requireUnread(snapshotId: string): void {
    const readers = this.#readers.get(snapshotId) ?? 0
    if (readers === 0) return
    const who = readers === 1 ? 'start of a capsule or export reads' : 'starts of capsules and exports read'
    throw new AppError('in_use', `${readers} ${who} it right now.`)
  }

  #count(snapshotId: string, change: number): void {
    const count = (this.#readers.get(snapshotId) ?? 0) + change
    if (count === 0) this.#readers.delete(snapshotId)
    else this.#readers.set(snapshotId, count)
  }

  async #describe(snapshotId: string): Promise<Snapshot | undefined> {
    const { states, sizes } = this.#context
    const dir = dirs.snapshot(snapshotId)
    const manifest = await states.read(dir)
    if (manifest === undefined) return undefined
    const durable = await states.durable(dir)
    return { snapshotId, manifest, sizeBytes: sizes.own(dir), durableAtMs: durable?.atMs }
  }
}
