import { type FileHandle, open } from 'node:fs/promises'
import { AppError } from '@wrenn/base'
import { COPIES, packChunk } from './chunk-codec.js'
import type { DamageMarks } from './damage-marks.js'
import { digestOf, isFileName, type Manifest, packManifest } from './manifest.js'
import type { ObjectStore } from './object-store.js'
import { Pace } from './pace.js'
import { forEachParallel } from './parallel.js'
import type { SaveOptions, SaveResult, StateFile } from './saved-state.js'
import type { StateKeys } from './state-keys.js'
import type { StatePlaces } from './state-places.js'

/** Where a state goes, and cut into what. */
export interface Saving {
  readonly store: ObjectStore
  readonly keys: StateKeys
  readonly places: StatePlaces
  readonly marks: DamageMarks
  /** Shared with other transfers. */
  readonly pace: Pace
  readonly chunkBytes: number
  readonly parallel: number
}

interface Planned extends StateFile {
  readonly sizeBytes: number
  /** Places of chunks that may hold something. */
  readonly wanted: readonly number[]
}

/** Saves the files: chunks that are not there yet, then the manifest. */
export async function saveState(
  saving: Saving,
  state: string,
  files: readonly StateFile[],
  options: SaveOptions,
): Promise<SaveResult> {
  requireNames(files)
  const plans: Planned[] = []
  for (const file of files) plans.push(await planOf(file, saving.chunkBytes, options))
  const totalBytes = totalOf(plans, saving.chunkBytes)
  const damaged = await saving.marks.list(options.signal)
  const save = new Save(saving, options, { totalBytes, damaged })
  const saved = []
  for (const plan of plans) saved.push(await save.file(plan))
  const manifest: Manifest = { chunkBytes: saving.chunkBytes, files: saved }
  const packed = packManifest(saving.keys, state, manifest)
  options.signal.throwIfAborted()
  await saving.store.put(saving.places.manifest(state), packed, options.signal)
  if (damaged.has(state)) await saving.marks.remove([state], options.signal)
  return { ...save.result(), digest: digestOf(manifest) }
}

function requireNames(files: readonly StateFile[]): void {
  const names = files.map(({ name }) => name)
  const wrong = names.find((name, at) => !isFileName(name) || names.indexOf(name) !== at)
  if (wrong !== undefined) throw new Error(`"${wrong}" is no name of a state's file, or one of two`)
}

async function planOf(file: StateFile, chunkBytes: number, { signal, dataRanges }: SaveOptions): Promise<Planned> {
  await using handle = await open(file.path, 'r')
  const { size } = await handle.stat()
  const wanted: number[] = []
  const whole = [{ offset: 0, length: size }]
  let next = 0
  for await (const { offset, length } of dataRanges?.(file.path, { signal }) ?? whole) {
    const end = Math.min(offset + length, size)
    for (let place = Math.max(next, Math.floor(offset / chunkBytes)); place * chunkBytes < end; place++) {
      wanted.push(place)
      next = place + 1
    }
  }
  return { ...file, sizeBytes: size, wanted }
}

function totalOf(plans: readonly Planned[], chunkBytes: number): number {
  const bytes = plans.flatMap(({ wanted, sizeBytes }) => wanted.map((place) => lengthAt(place, sizeBytes, chunkBytes)))
  return bytes.reduce((sum, each) => sum + each, 0)
}

/** The last chunk of a file may be shorter. */
export function lengthAt(place: number, sizeBytes: number, chunkBytes: number): number {
  return Math.min(chunkBytes, sizeBytes - place * chunkBytes)
}

/** One save under way: counts, and what of it is there already. */
class Save {
  readonly #saving: Saving
  readonly #options: SaveOptions
  readonly #totalBytes: number
  /** Ids of chunks that are not what they should be. */
  readonly #damaged: ReadonlySet<string>
  readonly #pace: Pace
  readonly #zeros: Buffer
  /** Each chunk is looked for and sent once, also when a file has it twice at the same time. */
  readonly #settled = new Map<string, Promise<void>>()
  #doneBytes = 0
  #bytes = 0
  #sentBytes = 0

  constructor(
    saving: Saving,
    options: SaveOptions,
    { totalBytes, damaged }: { readonly totalBytes: number; readonly damaged: ReadonlySet<string> },
  ) {
    this.#saving = saving
    this.#options = options
    this.#totalBytes = totalBytes
    this.#damaged = damaged
    this.#pace = new Pace(options.bytesPerSec)
    this.#zeros = Buffer.alloc(saving.chunkBytes)
  }

  result(): Omit<SaveResult, 'digest'> {
    return { bytes: this.#bytes, sentBytes: this.#sentBytes, chunks: this.#settled.size }
  }

  async file({ name, path, sizeBytes, wanted }: Planned): Promise<Manifest['files'][number]> {
    const ids = new Map<number, Buffer>()
    await using handle = await open(path, 'r')
    const { parallel: limit, chunkBytes, store } = this.#saving
    await forEachParallel(wanted, { limit, signal: this.#options.signal }, async (place, signal) => {
      using _ = await store.room.take(COPIES * chunkBytes, signal)
      const length = lengthAt(place, sizeBytes, chunkBytes)
      const plain = await readWhole(handle, place * chunkBytes, length, path)
      if (plain.compare(this.#zeros, 0, length) !== 0) {
        ids.set(place, await this.#chunk(plain, signal))
        this.#bytes += length
      }
      this.#doneBytes += length
      this.#options.onProgress?.({ doneBytes: this.#doneBytes, totalBytes: this.#totalBytes })
    })
    const places = [...ids.keys()].sort((a, b) => a - b)
    return { name, sizeBytes, places, ids: Buffer.concat(places.flatMap((place) => ids.get(place) ?? [])) }
  }

  async #chunk(plain: Buffer, signal: AbortSignal): Promise<Buffer> {
    const id = await this.#saving.keys.chunkId(plain)
    const name = id.toString('hex')
    const settled = this.#settled.get(name) ?? this.#settle(id, plain, signal)
    this.#settled.set(name, settled)
    await settled
    return id
  }

  async #settle(id: Buffer, plain: Buffer, signal: AbortSignal): Promise<void> {
    const { store, keys, places, marks } = this.#saving
    const key = places.chunk(id)
    const isDamaged = this.#damaged.has(id.toString('hex'))
    if (!isDamaged && (await store.has(key, signal))) return
    const packed = await packChunk(keys, id, plain)
    await this.#pace.take(packed.length, signal)
    await this.#saving.pace.take(packed.length, signal)
    await store.put(key, packed, signal)
    this.#sentBytes += packed.length
    if (isDamaged) await marks.remove([id.toString('hex')], signal)
  }
}

async function readWhole(file: FileHandle, offset: number, length: number, path: string): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(length)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, offset + filled)
    if (bytesRead === 0) throw new AppError('engine_failure', `${path} became shorter while it was saved.`)
    filled += bytesRead
  }
  return buffer
}
