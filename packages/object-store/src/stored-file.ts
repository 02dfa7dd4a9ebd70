import { AppError } from '@wrenn/base'
import { type ChunkSource, fetchChunk } from './load-state.js'
import { idAt, type ManifestFile } from './manifest.js'
import type { Pace } from './pace.js'
import { lengthAt } from './save-state.js'

/** A chunk of a file, opened and compared with its name. */
export interface StoredChunk {
  readonly plain: Buffer
  /** What came over the network for it. */
  readonly storedBytes: number
}

/** A file of a stored state that is read chunk by chunk. What it does not list is zeros. */
export class StoredFile {
  readonly #source: ChunkSource
  readonly #file: ManifestFile
  /** Where each place is in the list. */
  readonly #at: ReadonlyMap<number, number>
  /** So many chunks fit in the store's room at a time. */
  readonly parallel: number
  /** Shared with other transfers of this process. */
  readonly pace: Pace

  /** @throws AppError `stored_state_damaged` when the state has no file of that name */
  constructor(
    source: ChunkSource,
    name: string,
    { parallel, pace }: { readonly parallel: number; readonly pace: Pace },
  ) {
    const file = source.manifest.files.find((each) => each.name === name)
    if (file === undefined) {
      throw new AppError('stored_state_damaged', `The stored state ${source.state} has no file ${name}.`)
    }
    this.#source = source
    this.#file = file
    this.#at = new Map(file.places.map((place, at) => [place, at]))
    this.parallel = parallel
    this.pace = pace
  }

  get sizeBytes(): number {
    return this.#file.sizeBytes
  }

  get chunkBytes(): number {
    return this.#source.manifest.chunkBytes
  }

  /** Places of chunks that hold something, in units of their size, ascending. */
  get places(): readonly number[] {
    return this.#file.places
  }

  /**
   * The chunk at one of {@link places}.
   * @throws AppError `stored_state_damaged`, and what the store throws; the signal's reason
   */
  async chunk(place: number, signal: AbortSignal): Promise<StoredChunk> {
    const at = this.#at.get(place)
    if (at === undefined) throw new Error(`${this.#file.name} has no chunk ${place}`)
    const { sizeBytes } = this.#file
    const length = lengthAt(place, sizeBytes, this.chunkBytes)
    const target = { file: this.#file, offset: place * this.chunkBytes }
    return await fetchChunk(this.#source, { id: idAt(this.#file, at), length, targets: [target] }, signal)
  }
}
