import { randomBytes } from 'node:crypto'
import { AppError } from '@wrenn/base'
import { capture } from './capture.js'
import { type Context, dirs } from './context.js'
import type { DiffInput, FileChange } from './diff/index.js'
import { unrecordedPlan } from './guest.js'
import type { StateManifest } from './states.js'
import { StepTimer } from './step-timer.js'

const ANSWER_TIMEOUT_MS = 60_000
const SYNC_TIMEOUT_MS = 60_000
const NO_NETWORK = { internet: false, allow: [], deny: [] }

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
    const scratch = dirs.scratch(capsuleId, 'diff')
    try {
      const from = dirs.checkpoint(capsuleId, query.fromCheckpointId)
      const { image } = await this.#manifest(from)
      const to = await this.#target(query, `${scratch}/now`)
      yield* this.#diffDisks({
        fromDisk: await this.#completeDisk(from, `${scratch}/from`),
        toDisk: await this.#completeDisk(to, `${scratch}/to`),
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
    const plan = { ...unrecordedPlan(vmId, manifest, factory.imageOf(manifest.image), manifest.secret), dir: scratch }
    const guest = await factory.restore(plan, states.files(dir), { paused: true })
    try {
      await machine.slots.applyPolicy(guest.resources.slotIndex, NO_NETWORK)
      await guest.vm.resume()
      await guest.client.waitHealthy(ANSWER_TIMEOUT_MS)
      const { synced } = await guest.client.quiesce({ sync: true, timeoutMs: SYNC_TIMEOUT_MS })
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
