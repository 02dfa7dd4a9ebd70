import { ArchiveFrameError, ArchiveUnframer } from '@wrenn/protocol'
import { createError } from './errors.js'

/** The tar in an answer in frames, as it is read. It fails when the answer says that something is missing, or has no end. */
export function archiveStream(
  path: string,
  response: Response,
  onNote: (note: string) => void = () => {},
): ReadableStream<Uint8Array> {
  const pieces = unframed(path, response, onNote)
  return new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        const next = await pieces.next()
        if (next.done) controller.close()
        else controller.enqueue(next.value)
      },
      cancel: async () => {
        await pieces.return()
      },
    },
    // Nothing may wait in a stream that fails: it would be lost.
    { highWaterMark: 0 },
  )
}

async function* unframed(
  path: string,
  response: Response,
  onNote: (note: string) => void,
): AsyncGenerator<Uint8Array, void> {
  const unframer = new ArchiveUnframer()
  const reader = (response.body ?? new ReadableStream<Uint8Array>({ start: (each) => each.close() })).getReader()
  try {
    for (let next = await read(path, reader); !next.done; next = await read(path, reader))
      yield* unframer.push(next.value)
  } catch (error) {
    throw error instanceof ArchiveFrameError ? createError(error.message, { code: error.code, cause: error }) : error
  } finally {
    await reader.cancel().catch(() => {}) // it may have failed already, and its caller is told of that
  }
  const { end } = unframer
  if (end === undefined) throw cutShort(path)
  for (const note of end.notes) onNote(note)
  if (end.error !== undefined) throw createError(end.error.message, { code: end.error.code })
}

async function read(path: string, reader: ReadableStreamDefaultReader<Uint8Array>) {
  try {
    return await reader.read()
  } catch (error) {
    throw error instanceof Error && error.name === 'AbortError' ? error : cutShort(path, error)
  }
}

function cutShort(path: string, cause?: unknown) {
  return createError(`The connection ended before the archive of ${path} was complete.`, {
    code: 'connection_lost',
    cause,
  })
}
