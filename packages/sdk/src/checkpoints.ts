import type * as wire from '@wrenn/protocol'
import { checkpointInfo, fileChange } from './convert.js'
import { type LifecycleOptions, perform } from './lifecycle.js'
import type { CallOptions, Transport } from './transport.js'
import type { CheckpointInfo, FileChange } from './types.js'

/** A checkpoint by id, by name, or as it was listed. */
export type CheckpointRef = string | Pick<CheckpointInfo, 'id'>

/** Which part of the difference is wanted, and in what portions it is fetched. */
export interface DiffOptions extends CallOptions {
  /** Only below this absolute path. @default everything */
  readonly path?: string
  /** Asked for in pages of this many, 1 to 10,000. Only the speed depends on it. @default 1000 */
  readonly pageSize?: number
}

/** The points in time of one capsule, as the methods of `Capsule` need them; these say what they throw. */
export class Checkpoints {
  readonly #transport: Transport
  readonly #path: string

  constructor(transport: Transport, capsulePath: string) {
    this.#transport = transport
    this.#path = `${capsulePath}/checkpoints`
  }

  async create(name: string | undefined, options: LifecycleOptions): Promise<CheckpointInfo> {
    const operation = { what: 'The checkpoint', path: this.#path, json: { name } }
    return checkpointInfo(await perform<wire.Checkpoint>(this.#transport, operation, options))
  }

  async list(options: CallOptions): Promise<CheckpointInfo[]> {
    return (await this.#transport.json<wire.Checkpoint[]>('GET', this.#path, options)).map(checkpointInfo)
  }

  async delete(checkpoint: CheckpointRef, options: CallOptions): Promise<void> {
    await this.#transport.send('DELETE', this.pathOf(checkpoint), options)
  }

  async *diff(
    from: CheckpointRef,
    to: CheckpointRef,
    options: DiffOptions,
  ): AsyncGenerator<FileChange, void, undefined> {
    const { path, pageSize = 1000, ...call } = options
    const route = `${this.pathOf(from)}/diff/${encodeURIComponent(refOf(to))}`
    let cursor: string | undefined
    do {
      const query = { path, limit: pageSize, cursor }
      const page = await this.#transport.json<wire.DiffResult>('GET', route, { ...call, query })
      yield* page.changes.map(fileChange)
      cursor = page.next_cursor
    } while (cursor !== undefined)
  }

  async readFile(point: CheckpointRef, path: string, options: CallOptions): Promise<Uint8Array<ArrayBuffer>> {
    const route = `${this.pathOf(point)}/file`
    const response = await this.#transport.request('GET', route, { ...options, query: { path } })
    return new Uint8Array(await response.arrayBuffer())
  }

  /** Route of one checkpoint, by id or name. */
  pathOf(checkpoint: CheckpointRef): string {
    return `${this.#path}/${encodeURIComponent(refOf(checkpoint))}`
  }
}

/** The API takes names where it takes ids. */
export function refOf(checkpoint: CheckpointRef): string {
  return typeof checkpoint === 'string' ? checkpoint : checkpoint.id
}
