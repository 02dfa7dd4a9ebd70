import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { isErrno } from '@wrenn/base'

/**
 * The last `maxBytes` of a file in a directory that others can write: no link is followed, and a pipe planted there does
 * not block. Empty when there is no such file.
 */
export async function readTail(path: string, maxBytes: number): Promise<Buffer> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  const file = await open(path, flags).catch((error: unknown) => {
    if (isErrno(error, 'ENOENT', 'ELOOP')) return undefined
    throw error
  })
  if (!file) return Buffer.alloc(0)
  try {
    const stat = await file.stat()
    if (!stat.isFile()) return Buffer.alloc(0)
    const wanted = Math.min(stat.size, maxBytes)
    const { buffer, bytesRead } = await file.read(Buffer.alloc(wanted), 0, wanted, stat.size - wanted)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

/** Puts a complete file at `path`, or nothing: written beside under a fresh name, then renamed. Not fsynced. */
export async function putFile(path: string, content: Uint8Array): Promise<void> {
  const beside = `${path}.${randomBytes(4).toString('hex')}.tmp`
  try {
    const file = await open(beside, 'wx', 0o600)
    try {
      await file.writeFile(content)
    } finally {
      await file.close()
    }
    await rename(beside, path)
  } catch (error) {
    await rm(beside, { force: true }).catch(() => {}) // the first error says more
    throw error
  }
}
