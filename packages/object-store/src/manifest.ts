import { createHash } from 'node:crypto'
import { AppError } from '@wrenn/base'
import { z } from 'zod'
import type { StateKeys } from './state-keys.js'

const VERSION = 1
const ID_BYTES = 32
const CHECK_BYTES = 8
/** Version, and what tells that the key is the right one. */
const HEADER_BYTES = 1 + CHECK_BYTES
/** Of a state of a terabyte there are 60 MB. */
export const MAX_MANIFEST_BYTES = 128 * 2 ** 20
const MIN_CHUNK_BYTES = 4096
const MAX_CHUNK_BYTES = 16 * 2 ** 20
/** Names that mean the same in every folder. */
const FILE_NAME = /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}$/

/** A file of a state: where it holds something, and what. */
export interface ManifestFile {
  readonly name: string
  readonly sizeBytes: number
  /** Places of chunks, in units of their size, ascending. */
  readonly places: readonly number[]
  /** The chunk at each place: 32 bytes each, one after the other. */
  readonly ids: Buffer
}

/** What a state consists of. */
export interface Manifest {
  readonly chunkBytes: number
  readonly files: readonly ManifestFile[]
}

const fileSchema = z.object({
  name: z.string().regex(FILE_NAME),
  sizeBytes: z.int().min(0),
  places: z.array(z.int().min(0)),
  ids: z.base64(),
})
const manifestSchema = z.object({
  chunkBytes: z.int().min(MIN_CHUNK_BYTES).max(MAX_CHUNK_BYTES),
  files: z.array(fileSchema),
})

/** Whether a file of a state may be called so. */
export function isFileName(name: string): boolean {
  return FILE_NAME.test(name)
}

/** Chunk `at` of a file, by its number in the list. */
export function idAt({ ids }: ManifestFile, at: number): Buffer {
  return ids.subarray(at * ID_BYTES, (at + 1) * ID_BYTES)
}

/** Of names, sizes and contents. */
export function digestOf(manifest: Manifest): string {
  return createHash('sha256').update(textOf(manifest)).digest('hex')
}

/** The manifest as it is stored under the state's name. */
export function packManifest(keys: StateKeys, state: string, manifest: Manifest): Buffer {
  const header = Buffer.concat([Buffer.from([VERSION]), keys.check])
  return Buffer.concat([header, keys.sealManifest(state, header, Buffer.from(textOf(manifest)))])
}

/** @throws AppError `stored_state_damaged`, or `stored_state_wrong_key` */
export function unpackManifest(keys: StateKeys, state: string, stored: Buffer): Manifest {
  const header = stored.subarray(0, HEADER_BYTES)
  const damaged = (how: string) =>
    new AppError('stored_state_damaged', `The stored state ${state} is damaged: its manifest ${how}.`)
  if (header.length < HEADER_BYTES) throw damaged('was truncated')
  if (header[0] !== VERSION) throw damaged(`has version ${header[0]}, and ${VERSION} is known`)
  if (!header.subarray(1).equals(keys.check)) {
    throw new AppError(
      'stored_state_wrong_key',
      `The stored state ${state} was saved with another key than the team's.`,
    )
  }
  const content = keys.openManifest(state, header, stored.subarray(HEADER_BYTES))
  if (content === undefined) throw damaged('was truncated or changed')
  const parsed = manifestSchema.safeParse(JSON.parse(content.toString('utf8')))
  if (!parsed.success) throw damaged('is not as it should be')
  const files = parsed.data.files.map((file) => ({ ...file, ids: Buffer.from(file.ids, 'base64') }))
  const isWhole = files.every(
    (file) => file.ids.length === file.places.length * ID_BYTES && fits(file, parsed.data.chunkBytes),
  )
  if (!isWhole) throw damaged('is not as it should be')
  return { chunkBytes: parsed.data.chunkBytes, files }
}

function fits({ places, sizeBytes }: ManifestFile, chunkBytes: number): boolean {
  return places.every((place, at) => place > (places[at - 1] ?? -1) && place * chunkBytes < sizeBytes)
}

function textOf({ chunkBytes, files }: Manifest): string {
  return JSON.stringify({ chunkBytes, files: files.map((file) => ({ ...file, ids: file.ids.toString('base64') })) })
}
