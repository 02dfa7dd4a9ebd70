import { type FileHandle, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, UndoStack } from '@wrenn/base'
import { COPIES, maxPackedBytes, unpackChunk } from './chunk-codec.js'
import type { DamageMarks } from './damage-marks.js'
import { idAt, type Manifest, type ManifestFile } from './manifest.js'
import type { ObjectStore } from './object-store.js'
import { Pace } from './pace.js'
import { forEachParallel } from './parallel.js'
import { lengthAt } from './save-state.js'
import type { LoadResult, TransferOptions } from './saved-state.js'
import type { StateKeys } from './state-keys.js'
import type { StatePlaces } from './state-places.js'

/** Whence chunks of a state come. */
export interface ChunkSource {
  readonly store: ObjectStore
  readonly keys: StateKeys
  readonly places: StatePlaces
  readonly marks: DamageMarks
  readonly state: string
  readonly manifest: Manifest
}

/** Whence a state comes, and whereto. */
export interface Loading extends ChunkSource {
  /** Shared with other transfers. */
  readonly pace: Pace
  readonly parallel: number
  readonly folder: string
}

/** One chunk, and all places of files that have it. */
export interface Wanted {
  readonly id: Buffer
  readonly length: number
  readonly targets: { readonly file: ManifestFile; readonly offset: number }[]
}

/** Writes the state's files into the folder, holes left out, and flushes them. Files that it made are gone when it fails. */
export async function loadState(loading: Loading, options: TransferOptions): Promise<LoadResult> {
  const { parallel: limit, manifest, store } = loading
  const wanted = chunksOf(manifest)
  const totalBytes = wanted.reduce((sum, { length, targets }) => sum + length * targets.length, 0)
  const pace = new Pace(options.bytesPerSec)
  let doneBytes = 0
  let fetchedBytes = 0
  await using undo = new UndoStack()
  const files = await makeFiles(loading, undo)
  await forEachParallel(wanted, { limit, signal: options.signal }, async (chunk, signal) => {
    using _ = await store.room.take(COPIES * manifest.chunkBytes, signal)
    const { plain, storedBytes } = await fetchChunk(loading, chunk, signal)
    for (const { file, offset } of chunk.targets) await writeWhole(files.get(file), plain, offset)
    doneBytes += chunk.length * chunk.targets.length
    fetchedBytes += storedBytes
    options.onProgress?.({ doneBytes, totalBytes })
    await pace.take(storedBytes, signal)
    await loading.pace.take(storedBytes, signal)
  })
  for (const handle of files.values()) {
    await handle.sync()
    await handle.close()
  }
  await syncFolder(loading.folder)
  undo.move()
  return { bytes: totalBytes, fetchedBytes }
}

/** In the order of the files, each chunk once. */
function chunksOf({ chunkBytes, files }: Manifest): readonly Wanted[] {
  const wanted = new Map<string, Wanted>()
  for (const file of files) {
    for (const [at, place] of file.places.entries()) {
      const id = idAt(file, at)
      const length = lengthAt(place, file.sizeBytes, chunkBytes)
      const target = { file, offset: place * chunkBytes }
      const known = wanted.get(id.toString('hex'))
      if (known === undefined) wanted.set(id.toString('hex'), { id, length, targets: [target] })
      else known.targets.push(target)
    }
  }
  return [...wanted.values()]
}

async function makeFiles({ folder, manifest }: Loading, undo: UndoStack): Promise<Map<ManifestFile, FileHandle>> {
  const files = new Map<ManifestFile, FileHandle>()
  for (const file of manifest.files) {
    const path = join(folder, file.name)
    const handle = await open(path, 'wx', 0o600)
    await undo.defer(async () => {
      await handle.close()
      await rm(path, { force: true })
    })
    await handle.truncate(file.sizeBytes)
    files.set(file, handle)
  }
  return files
}

/**
 * Reads a chunk that is not as it should be once more: it may have been changed on its way.
 * @throws AppError `stored_state_damaged`, and what the store throws
 */
export async function fetchChunk(source: ChunkSource, chunk: Wanted, signal: AbortSignal): Promise<Fetched> {
  const first = await tryChunk(source, chunk, signal)
  const fetched = 'fault' in first ? await tryChunk(source, chunk, signal) : first
  if (!('fault' in fetched)) return fetched
  await source.marks.add(chunk.id.toString('hex'), signal)
  const [target] = chunk.targets
  const where = target === undefined ? '' : ` of ${target.file.name} at byte ${target.offset}`
  const key = source.places.chunk(chunk.id)
  const message = `The stored state ${source.state} is damaged: the chunk${where} (${key}) ${fetched.fault}.`
  throw new AppError('stored_state_damaged', message)
}

/** A chunk's content, and what came over the network for it. */
export interface Fetched {
  readonly plain: Buffer
  readonly storedBytes: number
}

async function tryChunk(
  { store, keys, places, manifest }: ChunkSource,
  { id, length }: Wanted,
  signal: AbortSignal,
): Promise<Fetched | { readonly fault: string }> {
  try {
    const maxBytes = maxPackedBytes(manifest.chunkBytes)
    const stored = await store.get(places.chunk(id), { maxBytes, signal })
    if (stored === undefined) return { fault: 'is missing' }
    const unpacked = await unpackChunk(keys, id, stored, length)
    return 'fault' in unpacked ? unpacked : { ...unpacked, storedBytes: stored.length }
  } catch (error) {
    if (AppError.is(error, 'stored_state_damaged')) return { fault: 'is larger than it can be' }
    throw error
  }
}

async function writeWhole(handle: FileHandle | undefined, bytes: Buffer, offset: number): Promise<void> {
  if (handle === undefined) throw new Error('each file of a manifest was made')
  let written = 0
  while (written < bytes.length) {
    written += (await handle.write(bytes, written, bytes.length - written, offset + written)).bytesWritten
  }
}

async function syncFolder(folder: string): Promise<void> {
  await using handle = await open(folder, 'r')
  await handle.sync()
}
