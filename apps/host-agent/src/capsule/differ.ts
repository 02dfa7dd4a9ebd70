import { randomBytes } from 'node:crypto'
import { AppError } from '@wrenn/base'
import { capture } from './capture.js'
import { type Context, dirs } from './context.js'
import type { DiffInput, FileChange } from './diff/index.js'
import type { StateManifest } from './states.js'
import { StepTimer } from './step-timer.js'

export interface DiffQuery {
  readonly capsuleId: string
  readonly fromCheckpointId: string
  /** `undefined`: the capsule as it is now. */
  readonly toCheckpointId: string | undefined
  readonly path: string | undefined
  readonly signal: AbortSignal
}

/** Reads two disks and tells what differs; injected, because it works with the real file system. */
export type DiffDisks = (input: DiffInput) => AsyncIterable<FileChange>

/** Compares the files of two points in a capsule's time, from their disks, without a guest. */
export class CheckpointDiffer {
  readonly #context: Context
  readonly #diffDisks: DiffDisks

  constructor(context: Context, diffDisks: DiffDisks) {
    this.#context = context
    this.#diffDisks = diffDisks
  }

  /** @throws AppError `capsule_not_found`, `checkpoint_not_found`, `snapshot_damaged` */
  async *diff(query: DiffQuery): AsyncGenerator<FileChange> {
    const { states, table } = this.#context
    const { capsuleId, path, signal } = query
    table.entry(capsuleId)
    // Swept at the next start when this process dies meanwhile.
    const scratch = `${dirs.capsule(capsuleId)}-diff-${randomBytes(4).toString('hex')}`
    try {
      const from = dirs.checkpoint(capsuleId, query.fromCheckpointId)
      const to = await this.#target(query, `${scratch}/now`)
      const { image } = await this.#manifest(from)
      await this.#manifest(to)
      yield* this.#diffDisks({
        fromDisk: states.files(from).diskPath,
        toDisk: states.files(to).diskPath,
        basePath: states.path(image.basePath),
        ...(path === undefined ? {} : { path }),
        signal,
      })
    } finally {
      await states.remove(scratch)
    }
  }

  async #target({ capsuleId, toCheckpointId }: DiffQuery, now: string): Promise<string> {
    if (toCheckpointId !== undefined) return dirs.checkpoint(capsuleId, toCheckpointId)
    const { table } = this.#context
    await table.exclusive(capsuleId, async () => {
      const entry = table.require(capsuleId, 'checkpoint')
      await capture(entry, this.#context, now, { syncFiles: true, name: 'diff', timer: new StepTimer() })
    })
    return now
  }

  async #manifest(dir: string): Promise<StateManifest> {
    const manifest = await this.#context.states.read(dir)
    if (manifest === undefined)
      throw new AppError('checkpoint_not_found', `There is no checkpoint ${dir.split('/').at(-1)}.`)
    return manifest
  }
}
