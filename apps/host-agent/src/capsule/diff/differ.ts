import { randomBytes } from 'node:crypto'
import { AppError, abortable, errorText } from '@wrenn/base'
import { type Context, dirs } from '../context.js'
import { unrecordedPlan } from '../guest/index.js'
import { capture } from '../lifecycle/index.js'
import { hardwareOf, type StateManifest } from '../state/index.js'
import { StepTimer } from '../step-timer.js'
import type { FileChange } from './change.js'
import { readDiskFile } from './disk-file.js'
import type { DiffInput } from './input.js'
import { DiffTurns } from './turns.js'

const ANSWER_TIMEOUT_MS = 60_000
const SYNC_TIMEOUT_MS = 60_000
const NO_NETWORK = { internet: false, allow: [], deny: [] }
/** How long after a page the next one can be asked for. */
const KEEP_MS = 2 * 60_000
/** Of one capsule; a further one takes the place of the one that was used longest ago. */
const MAX_KEPT = 2

/** Which two points are compared, and which page of the changes is wanted. */
export interface DiffQuery {
  readonly capsuleId: string
  readonly fromCheckpointId: string
  /** `undefined`: the capsule as it is now. */
  readonly toCheckpointId: string | undefined
  /** "Now" is when the page before this one was read. Absent on the first page, and when both points are checkpoints. */
  readonly captureId: string | undefined
  /** Only this absolute path and what is below it, as a user in the capsule sees it. */
  readonly path: string | undefined
  /** Only changes whose paths come after it. */
  readonly after: Buffer | undefined
  /** Stops after so many changes. */
  readonly limit: number | undefined
  /** Ends the reading of the disks, also between two changes. */
  readonly signal: AbortSignal
}

/** Which file is wanted, as it was at which point. */
export interface FileQuery extends Pick<DiffQuery, 'capsuleId' | 'signal'> {
  /** `undefined`: the capsule as it is now. */
  readonly checkpointId: string | undefined
  /** Absolute, as a user in the capsule sees it. */
  readonly path: string
  /** A larger file is refused. */
  readonly maxBytes: number
}

/** Where a comparison goes on: of a capsule as it was when the first page was read. */
export interface DiffPage {
  captureId: string | undefined
}

/** Reads two disks and tells what differs; injected, because it works with the real file system. */
export type DiffDisks = (input: DiffInput) => AsyncIterable<FileChange>

interface Comparison {
  readonly id: string
  readonly capsuleId: string
  readonly fromCheckpointId: string
  readonly scratch: string
  readonly disks: Pick<DiffInput, 'fromDisk' | 'toDisk' | 'basePath'>
  /** Pages being read. */
  readers: number
  expiry: NodeJS.Timeout | undefined
}

/** Compares the files of two points in a capsule's time, from their disks, without a guest. */
export class CheckpointDiffer {
  readonly #context: Context
  readonly #diffDisks: DiffDisks
  readonly #turns: DiffTurns
  /** Comparisons with a capsule as it was at a first page, the one used longest ago first. */
  readonly #kept = new Map<string, Comparison>()
  /** Comparisons being prepared, and captures being removed. */
  readonly #pending = new Set<Promise<unknown>>()
  /** Pages being read, each with how to end it. */
  readonly #pages = new Map<AsyncIterator<FileChange>, Comparison>()
  readonly #closing = new AbortController()

  constructor(context: Context, diffDisks: DiffDisks, turns = new DiffTurns()) {
    this.#context = context
    this.#diffDisks = diffDisks
    this.#turns = turns
    context.table.watch((event) => {
      if ('removed' in event) for (const one of this.#of(event.removed)) this.#dropLater(one)
    })
  }

  /**
   * A page of changes. When it stops at its limit and the capsule as it is now was asked for, `page` names the comparison, which
   * is kept for the next page for two minutes.
   * @throws AppError `capsule_not_found`, `checkpoint_not_found`, `snapshot_damaged`, `invalid_request` when it was not kept,
   * `limit_exceeded` when too many are read
   */
  async *diff(query: DiffQuery, page: DiffPage = { captureId: undefined }): AsyncGenerator<FileChange> {
    const { path, after, limit } = query
    this.#requireOpen()
    using _ = await this.#turn(query)
    this.#requireOpen()
    const comparison =
      query.captureId === undefined ? await this.#tracked(this.#open(query)) : this.#take(query, query.captureId)
    let isKept = query.captureId !== undefined
    let count = 0
    const signal = AbortSignal.any([query.signal, this.#closing.signal])
    const changes = this.#diffDisks({ ...comparison.disks, ...(path === undefined ? {} : { path }), signal })
    const reading = changes[Symbol.asyncIterator]()
    this.#pages.set(reading, comparison)
    try {
      for await (const change of { [Symbol.asyncIterator]: () => reading }) {
        if (after !== undefined && Buffer.compare(change.path, after) <= 0) continue
        count += 1
        if (count === limit && query.toCheckpointId === undefined) {
          page.captureId = comparison.id
          isKept = true
        }
        yield change
        if (count === limit) return
      }
      this.#requireOpen() // what was ended is not the end
    } finally {
      this.#pages.delete(reading)
      comparison.readers -= 1
      if (isKept && !this.#closing.signal.aborted) this.#keep(comparison)
      else await this.#drop(comparison)
    }
  }

  /**
   * The content of a file at one point.
   * @throws AppError `capsule_not_found`, `checkpoint_not_found`, `limit_exceeded` when too many are read, and those of `readDiskFile`
   */
  async readFile(query: FileQuery): Promise<Buffer> {
    this.#requireOpen()
    using _ = await this.#turn(query)
    this.#requireOpen()
    return await this.#tracked(this.#readFile(query))
  }

  async #turn({ capsuleId, signal }: Pick<DiffQuery, 'capsuleId' | 'signal'>): Promise<Disposable> {
    const { record } = this.#context.table.entry(capsuleId)
    return await this.#turns.take(record, AbortSignal.any([signal, this.#closing.signal]))
  }

  /**
   * Ends the pages that are being read and removes every capture: nothing of a comparison is on the pool, or runs, when this
   * returns. For the end of this process.
   */
  async close(): Promise<void> {
    this.#closing.abort(stopping())
    await Promise.allSettled(this.#pending)
    const read = [...this.#pages.values()]
    // One whose reader is slow waits between two changes, with its disks open.
    await Promise.allSettled([...this.#pages.keys()].map(async (page) => await page.return?.()))
    for (const comparison of new Set([...this.#kept.values(), ...read])) {
      comparison.readers = 0
      this.#dropLater(comparison)
    }
    await Promise.allSettled(this.#pending)
  }

  /** @throws AppError `host_unavailable` once this process is about to end */
  #requireOpen(): void {
    if (this.#closing.signal.aborted) throw stopping()
  }

  async #readFile({ capsuleId, checkpointId, path, maxBytes, signal }: FileQuery): Promise<Buffer> {
    const { states } = this.#context
    const scratch = dirs.scratch(capsuleId, 'diff')
    try {
      const dir = await this.#point(capsuleId, checkpointId, `${scratch}/now`)
      const { image } = await this.#manifest(dir)
      const disk = await this.#completeDisk(dir, `${scratch}/disk`)
      this.#requireOpen()
      const ended = AbortSignal.any([signal, this.#closing.signal])
      return await readDiskFile({ disk, basePath: states.path(image.basePath), path, maxBytes, signal: ended })
    } finally {
      await states.remove(scratch)
    }
  }

  async #tracked<T>(task: Promise<T>): Promise<T> {
    this.#pending.add(task)
    try {
      return await task
    } finally {
      this.#pending.delete(task)
    }
  }

  async #open(query: DiffQuery): Promise<Comparison> {
    const { states } = this.#context
    const { capsuleId, fromCheckpointId, toCheckpointId } = query
    const scratch = dirs.scratch(capsuleId, 'diff')
    try {
      const from = dirs.checkpoint(capsuleId, fromCheckpointId)
      const { image } = await this.#manifest(from)
      const to = await this.#point(capsuleId, toCheckpointId, `${scratch}/now`)
      const disks = {
        fromDisk: await this.#completeDisk(from, `${scratch}/from`),
        toDisk: await this.#completeDisk(to, `${scratch}/to`),
        basePath: states.path(image.basePath),
      }
      this.#requireOpen()
      const id = randomBytes(8).toString('hex')
      return { id, capsuleId, fromCheckpointId, scratch, disks, readers: 1, expiry: undefined }
    } catch (error) {
      await states.remove(scratch)
      throw error
    }
  }

  #take({ capsuleId, fromCheckpointId }: DiffQuery, captureId: string): Comparison {
    const kept = this.#kept.get(captureId)
    if (kept === undefined || kept.capsuleId !== capsuleId || kept.fromCheckpointId !== fromCheckpointId) {
      throw new AppError(
        'invalid_request',
        'cursor: the capsule as it was at the first page is kept for two minutes after each page, and is gone; begin again.',
      )
    }
    kept.readers += 1
    return kept
  }

  #keep(comparison: Comparison): void {
    clearTimeout(comparison.expiry)
    // Its capsule may have been destroyed while the page was read.
    if (this.#context.table.find(comparison.capsuleId) === undefined) {
      this.#dropLater(comparison)
      return
    }
    this.#kept.delete(comparison.id)
    this.#kept.set(comparison.id, comparison)
    comparison.expiry = setTimeout(() => this.#dropLater(comparison), KEEP_MS).unref()
    const kept = this.#of(comparison.capsuleId)
    for (const oldest of kept.slice(0, Math.max(0, kept.length - MAX_KEPT))) this.#dropLater(oldest)
  }

  #of(capsuleId: string): Comparison[] {
    return [...this.#kept.values()].filter((kept) => kept.capsuleId === capsuleId)
  }

  #dropLater(comparison: Comparison): void {
    const { scratch } = comparison
    this.#tracked(this.#drop(comparison)).catch((error: unknown) => {
      this.#context.logger.warn({ dir: scratch, error: errorText(error) }, 'diff.not_removed')
    })
  }

  /** One that is being read goes with its last reader, who does not find it kept. */
  async #drop(comparison: Comparison): Promise<void> {
    clearTimeout(comparison.expiry)
    this.#kept.delete(comparison.id)
    if (comparison.readers <= 0) await this.#context.states.remove(comparison.scratch)
  }

  /** Where the files of a point are; those of now are saved to `now` for it. */
  async #point(capsuleId: string, checkpointId: string | undefined, now: string): Promise<string> {
    if (checkpointId !== undefined) return dirs.checkpoint(capsuleId, checkpointId)
    const { table } = this.#context
    await table.exclusive(capsuleId, async () => {
      const entry = table.require(capsuleId, 'checkpoint')
      await capture(entry, this.#context, now, {
        syncFiles: true,
        name: 'diff',
        timer: new StepTimer(this.#context.tracer),
      })
    })
    return now
  }

  /**
   * A disk with every file on it. Where the guest was stopped with files still in its memory, as by a pause that somebody
   * waited for, a private copy of it, without a network, runs for as long as it takes to write them out.
   */
  async #completeDisk(dir: string, scratch: string): Promise<string> {
    const { states, factory, machine } = this.#context
    const manifest = await this.#manifest(dir)
    if (manifest.synced) return states.files(dir).diskPath
    await states.usable(dir)
    const vmId = `diff-${randomBytes(8).toString('hex')}`
    const image = factory.imageOf(manifest.image)
    const copy = { spec: manifest, hardware: hardwareOf(manifest), image, secret: manifest.secret }
    const plan = { ...unrecordedPlan(vmId, copy), dir: scratch }
    const guest = await factory.restore(plan, states.files(dir), { paused: true })
    try {
      await machine.slots.applyPolicy(guest.resources.slotIndex, NO_NETWORK)
      await guest.vm.resume()
      const written = guest.client
        .waitHealthy(ANSWER_TIMEOUT_MS)
        .then(async () => await guest.client.quiesce({ sync: true, timeoutMs: SYNC_TIMEOUT_MS }))
      const { synced } = await abortable(written, this.#closing.signal)
      if (!synced) throw new AppError('timeout', 'The guest did not write its files out in time for a comparison.')
    } finally {
      guest.client.close()
      await factory.stop(guest.resources, guest.vm)
    }
    return states.files(scratch).diskPath
  }

  async #manifest(dir: string): Promise<StateManifest> {
    const manifest = await this.#context.states.read(dir)
    if (manifest === undefined)
      throw new AppError('checkpoint_not_found', `There is no checkpoint ${dir.split('/').at(-1)}.`)
    return manifest
  }
}

function stopping(): AppError {
  return new AppError('host_unavailable', 'The host agent is about to end; ask again when it is back.')
}
