import type { Files } from '@wrenn/sdk'
import { imageType } from './paths.js'
import { decodeText, type TextFile } from './text-file.js'

/** More of a text is not shown. */
export const MAX_TEXT_BYTES = 512 * 1024
/** Larger pictures are not shown. */
export const MAX_IMAGE_BYTES = 20 * 1024 * 1024
/** A file that was changed just now has no version; after this it has. */
const SETTLED_MS = 100

/** What can be shown of a file as it is now. */
export type Preview =
  | { readonly kind: 'text'; readonly file: TextFile; readonly isCut: boolean; readonly version: string | undefined }
  | { readonly kind: 'image'; readonly blob: Blob }
  | { readonly kind: 'large-image' }
  | { readonly kind: 'other' }

interface Named {
  readonly path: string
  readonly name: string
}

/**
 * Reads no more than is shown, whatever a list has said of the size: the file may have grown since.
 * @throws WrennError as reading does
 */
export async function lookAt(files: Pick<Files, 'open'>, { path, name }: Named, signal: AbortSignal): Promise<Preview> {
  const type = imageType(name)
  const maxBytes = type === undefined ? MAX_TEXT_BYTES : MAX_IMAGE_BYTES
  const seen = await readFirst(files, path, maxBytes, signal)
  if (type !== undefined) {
    return seen.isCut ? { kind: 'large-image' } : { kind: 'image', blob: new Blob([seen.bytes], { type }) }
  }
  const { bytes, isCut, version } = seen.version === undefined ? await lookAgain(files, path, signal) : seen
  const file = decodeText(bytes, isCut)
  return file === undefined ? { kind: 'other' } : { kind: 'text', file, isCut, version }
}

interface First {
  readonly bytes: Uint8Array<ArrayBuffer>
  /** There is more. */
  readonly isCut: boolean
  readonly version: string | undefined
}

async function lookAgain(files: Pick<Files, 'open'>, path: string, signal: AbortSignal): Promise<First> {
  await new Promise((resolve) => setTimeout(resolve, SETTLED_MS))
  return await readFirst(files, path, MAX_TEXT_BYTES, signal)
}

/** One byte more than `maxBytes` tells that there is more. */
async function readFirst(
  files: Pick<Files, 'open'>,
  path: string,
  maxBytes: number,
  signal: AbortSignal,
): Promise<First> {
  const { stream, version } = await files.open(path, { signal })
  const reader = stream.getReader()
  const bytes = new Uint8Array(maxBytes + 1)
  let size = 0
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    const part = next.value.subarray(0, bytes.length - size)
    bytes.set(part, size)
    size += part.length
    if (size < bytes.length) continue
    await reader.cancel()
    break
  }
  return { bytes: bytes.slice(0, Math.min(size, maxBytes)), isCut: size > maxBytes, version }
}
