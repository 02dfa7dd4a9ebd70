import type { Readable } from 'node:stream'
import { AppError } from '@wrenn/base'
import { ARCHIVE_TYPE, type ArchiveEnd, ArchiveFrameError, ArchiveUnframer } from '@wrenn/protocol'
import { z } from 'zod'
import { fileQuery, type GuestClient, type GuestStream } from './client.js'

const unpackAnswer = z.object({ bytes: z.number() })

/**
 * Asks a guest for a tar of what `path` names.
 * @throws AppError `file_not_found`, `permission_denied`, `not_a_directory`, `method_not_allowed` from an agent that has no archives
 */
export async function openArchive(
  client: GuestClient,
  path: string,
  user: string,
  signal: AbortSignal,
): Promise<GuestStream> {
  return await explained(client.open(`/archive?${fileQuery(path, user)}`, signal))
}

/** The pieces of an archive, then how it ended. @throws AppError `guest_error` when its frames are damaged or its end is left out */
export async function* archivePieces({ chunks }: GuestStream): AsyncGenerator<Uint8Array, ArchiveEnd> {
  const unframer = new ArchiveUnframer()
  try {
    for await (const chunk of chunks) yield* unframer.push(chunk)
  } catch (error) {
    throw error instanceof ArchiveFrameError ? new AppError(error.code, error.message, { cause: error }) : error
  }
  if (unframer.end === undefined) throw new AppError('guest_error', 'The guest agent ended the archive too early.')
  return unframer.end
}

/**
 * Streams a tar into a directory of a guest. @returns how many bytes it had
 * @throws AppError `disk_full`, `permission_denied`, `invalid_request` for what is no whole archive, …
 */
export async function unpackArchive(
  client: GuestClient,
  path: string,
  user: string,
  body: Readable,
  signal: AbortSignal,
): Promise<number> {
  const url = `/archive?${fileQuery(path, user)}`
  return unpackAnswer.parse(await explained(client.send(url, ARCHIVE_TYPE, body, signal))).bytes
}

/** A guest that was saved before its agent had archives runs on with the agent it was saved with. */
async function explained<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    if (!AppError.is(error, 'file_not_found') || !/^No route /.test(error.message)) throw error
    const text = 'This capsule runs since before its guest agent knew archives: use tar in it, or copy single files.'
    throw new AppError('method_not_allowed', text, { cause: error })
  }
}
