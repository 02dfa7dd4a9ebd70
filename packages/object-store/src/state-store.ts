import { AppError } from '@wrenn/base'
import { COPIES } from './chunk-codec.js'
import { DamageMarks } from './damage-marks.js'
import { loadState } from './load-state.js'
import { idAt, MAX_MANIFEST_BYTES, type Manifest, unpackManifest } from './manifest.js'
import type { ObjectStore } from './object-store.js'
import { Pace } from './pace.js'
import { saveState } from './save-state.js'
import type {
  CollectOptions,
  CollectResult,
  LoadOptions,
  LoadResult,
  SaveOptions,
  SaveResult,
  StateFile,
} from './saved-state.js'
import { StateKeys, type StoredTeam } from './state-keys.js'
import { StatePlaces } from './state-places.js'
import { StoredFile } from './stored-file.js'

const MIB = 2 ** 20
const CHUNK_BYTES = MIB

/** How states are cut. */
export interface StateStoreOptions {
  /** Of states that are saved; those that are there are read as they are. @default 1 MiB */
  readonly chunkBytes?: number
  /** Of what goes over the network, beside a limit of each transfer: all that have it share it. @default no limit */
  readonly pace?: Pace
}

/**
 * Saved states of one team in an object store, as chunks that are named after their content, compressed and encrypted. States of a team share
 * chunks; whose key is another one's can neither read nor find them.
 *
 * What the store throws comes through: AppError `object_store_unavailable`, `object_store_refused`, the signal's reason.
 */
export class StateStore {
  readonly #store: ObjectStore
  readonly #keys: StateKeys
  readonly #places: StatePlaces
  readonly #marks: DamageMarks
  readonly #chunkBytes: number
  readonly #pace: Pace

  constructor(store: ObjectStore, team: StoredTeam, options: StateStoreOptions = {}) {
    this.#store = store
    this.#keys = new StateKeys(team)
    this.#places = new StatePlaces(team.id)
    this.#marks = new DamageMarks(store, this.#places)
    this.#chunkBytes = options.chunkBytes ?? CHUNK_BYTES
    this.#pace = options.pace ?? new Pace(undefined)
  }

  /**
   * Saves files, which must not change meanwhile. Chunks that are there already are not sent again, so a save that was broken off goes on
   * where it was, unless they were found damaged; zeros are not sent. The manifest is written last: when it is there, the state is whole.
   * @param state letters, digits and `-`; one of that name is replaced
   */
  async save(state: string, files: readonly StateFile[], options: SaveOptions): Promise<SaveResult> {
    const { parallel, ...saving } = this.#transfer(this.#chunkBytes)
    return await saveState({ ...saving, parallel, chunkBytes: this.#chunkBytes }, state, files, options)
  }

  /** Whether the state is there, which means that it is whole, and nothing of it was found damaged since. */
  async has(state: string, signal?: AbortSignal): Promise<boolean> {
    if (!(await this.#store.has(this.#places.manifest(state), signal))) return false
    const damaged = await this.#marks.list(signal)
    if (damaged.size === 0) return true
    try {
      return (
        !damaged.has(state) &&
        !chunksIn(await this.#manifest(state, signal)).some((id) => damaged.has(id.toString('hex')))
      )
    } catch (error) {
      if (AppError.is(error, 'stored_state_damaged', 'stored_state_not_found')) return false
      throw error
    }
  }

  /**
   * Writes the state's files, sparse, into a folder that has none of their names, and flushes them to the disk. Each chunk's content is
   * compared with its name; one that is damaged or missing is noted, so that the next save of its content writes it anew. When it fails, what it
   * wrote is gone.
   * @throws AppError `stored_state_not_found`, `stored_state_wrong_key`, `stored_state_damaged` with the object's name
   */
  async load(state: string, folder: string, options: LoadOptions): Promise<LoadResult> {
    const whole = await this.#manifestToLoad(state, options.signal)
    const files = whole.files.filter(({ name }) => options.except?.includes(name) !== true)
    const manifest = { ...whole, files }
    return await loadState({ ...this.#transfer(manifest.chunkBytes), state, manifest, folder }, options)
  }

  /**
   * Opens one file of a state, to be read chunk by chunk.
   * @throws AppError as {@link load}; `stored_state_damaged` when it has no such file
   */
  async openFile(state: string, name: string, signal: AbortSignal): Promise<StoredFile> {
    const manifest = await this.#manifestToLoad(state, signal)
    const { store, keys, places, marks, parallel, pace } = this.#transfer(manifest.chunkBytes)
    return new StoredFile({ store, keys, places, marks, state, manifest }, name, { parallel, pace })
  }

  /** Removes the manifest; its chunks go by {@link collect}. One that is not there counts as removed. */
  async remove(state: string, signal?: AbortSignal): Promise<void> {
    await this.#store.remove([this.#places.manifest(state)], signal)
  }

  /**
   * Removes chunks that no state needs. Nobody may save for the team meanwhile: the caller has a lock. When a state cannot be read, nothing
   * is removed.
   * @throws AppError as {@link load}
   */
  async collect({ signal, known = [] }: CollectOptions): Promise<CollectResult> {
    const { manifests, chunks } = this.#places
    const states = new Set(known)
    for await (const { key } of this.#store.list(manifests, signal)) states.add(key.slice(manifests.length))
    const needed = new Set<string>()
    for (const state of states) {
      for (const id of chunksIn(await this.#manifest(state, signal))) needed.add(this.#places.chunk(id))
    }
    const unused: string[] = []
    let bytes = 0
    for await (const { key, sizeBytes } of this.#store.list(chunks, signal)) {
      if (needed.has(key)) continue
      unused.push(key)
      bytes += sizeBytes
    }
    await this.#store.remove(unused, signal)
    const idle = [...(await this.#marks.list(signal))].filter(
      (id) => !needed.has(this.#places.chunk(Buffer.from(id, 'hex'))),
    )
    await this.#marks.remove(idle, signal)
    return { removed: unused.length, bytes }
  }

  #transfer(chunkBytes: number) {
    const parallel = Math.max(1, Math.floor(this.#store.room.bytes / (COPIES * chunkBytes)))
    return {
      store: this.#store,
      keys: this.#keys,
      places: this.#places,
      marks: this.#marks,
      pace: this.#pace,
      parallel,
    }
  }

  async #manifestToLoad(state: string, signal: AbortSignal): Promise<Manifest> {
    try {
      return await this.#manifest(state, signal)
    } catch (error) {
      if (AppError.is(error, 'stored_state_damaged')) await this.#marks.add(state, signal)
      throw error
    }
  }

  async #manifest(state: string, signal?: AbortSignal): Promise<Manifest> {
    const stored = await this.#store.get(this.#places.manifest(state), { maxBytes: MAX_MANIFEST_BYTES, signal })
    if (stored !== undefined) return unpackManifest(this.#keys, state, stored)
    throw new AppError('stored_state_not_found', `There is no stored state ${state} in ${this.#store.name}.`)
  }
}

function chunksIn({ files }: Manifest): readonly Buffer[] {
  return files.flatMap((file) => file.places.map((_, at) => idAt(file, at)))
}
