import { once } from 'node:events'
import type { FileHandle } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { AppError, errorText } from '@wrenn/base'
import { createTarDecoder } from 'modern-tar'
import { MAX_ENTRY_BYTES } from './format.js'

const READ_BYTES = 256 * 1024

/** A file of an archive. */
export interface ArchiveEntry {
  readonly name: string
  readonly content: Buffer
}

/**
 * The files of an archive, one after the other. The handle stays the caller's.
 * @param onRead how many bytes of the archive were read
 * @throws AppError `invalid_request` for what is no archive, is damaged or was cut off
 */
export async function* readArchive(file: FileHandle, onRead: (bytes: number) => void): AsyncGenerator<ArchiveEntry> {
  const source = Readable.from(bytesOf(file, onRead))
  const unpacked = createGunzip()
  source.on('error', (error) => unpacked.destroy(error))
  source.pipe(unpacked)
  try {
    const entries = Readable.toWeb(unpacked).pipeThrough(createTarDecoder({ strict: true }))
    for await (const { header, body } of entries) {
      if (header.size > MAX_ENTRY_BYTES) throw damaged(`${header.name} has ${header.size} bytes`)
      const parts: Uint8Array[] = []
      for await (const part of body) parts.push(part)
      yield { name: header.name, content: Buffer.concat(parts) }
    }
  } catch (error) {
    throw error instanceof AppError ? error : damaged(errorText(error), error)
  } finally {
    unpacked.destroy()
    // Its last read has ended then, and the caller may close the file.
    if (!source.closed) await once(source.destroy(), 'close')
  }
}

/** By reads of its own, for it is read twice: a stream of a file closes it, or keeps who has it from closing it. */
async function* bytesOf(file: FileHandle, onRead: (bytes: number) => void): AsyncGenerator<Buffer> {
  let position = 0
  for (;;) {
    const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(READ_BYTES), 0, READ_BYTES, position)
    if (bytesRead === 0) return
    position += bytesRead
    onRead(position)
    yield buffer.subarray(0, bytesRead)
  }
}

/** The error for an archive that is not as it was written. */
export function damaged(why: string, cause?: unknown): AppError {
  return new AppError('invalid_request', `This is no whole backup of Wrenn: ${why}.`, { cause })
}
