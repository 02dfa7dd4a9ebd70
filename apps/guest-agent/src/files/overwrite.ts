import { fstatSync, ftruncateSync, type Stats, statfsSync } from 'node:fs'
import { AppError } from '@wrenn/base'
import type { GuestUser } from '../identity/users.js'
import { asUser } from '../system/as-user.js'
import { type Content, sizeOf, writePart } from './descriptor-io.js'
import { descriptorPath } from './kernel-path.js'

const BLOCK_BYTES = 512

/**
 * Gives an open file new content, in place: owner, mode, attributes and hard links stay as they are, and whoever has it open
 * sees the new bytes. What is new behind the old end comes first, so that a full disk is met before a byte has been replaced;
 * the file is then as it was. `prepare` is what else must succeed for that.
 * @throws AppError `disk_full`; the file system's error
 */
export async function overwrite(
  fd: number,
  content: Content,
  user: GuestUser,
  prepare: () => Promise<void>,
): Promise<void> {
  const stats = fstatSync(fd)
  const size = sizeOf(content)
  dropPrivileges(fd, stats, user)
  requireRoomForHoles(fd, stats, size)
  await extend(fd, content, stats.size, prepare)
  await writePart(fd, content, { start: 0, end: Math.min(stats.size, size) })
  if (size < stats.size) ftruncateSync(fd, size)
}

/**
 * A write by anybody but root takes set-uid and set-gid away. The agent's own writes are root's, so the kernel is shown one by
 * the user first: a truncation to the length that there is.
 */
function dropPrivileges(fd: number, { mode, size }: Stats, user: GuestUser): void {
  if (user.uid !== 0 && (mode & 0o6000) !== 0) asUser(user, () => ftruncateSync(fd, size))
}

/** Bytes written where the old file has holes take space too, which `extend` does not try out. */
function requireRoomForHoles(fd: number, { size, blocks }: Stats, newSize: number): void {
  const missing = Math.min(size, newSize) - blocks * BLOCK_BYTES
  if (missing <= 0) return
  // The file systems of `/proc` and `/sys` have no blocks at all.
  const { bavail, bsize, blocks: all } = statfsSync(descriptorPath(fd))
  if (all === 0 || missing <= bavail * bsize) return
  throw new AppError('disk_full', 'The file cannot be written: the disk has no room for what its holes would take.')
}

async function extend(fd: number, content: Content, oldSize: number, prepare: () => Promise<void>): Promise<void> {
  const size = sizeOf(content)
  try {
    if (size > oldSize) await writePart(fd, content, { start: oldSize, end: size })
    await prepare()
  } catch (error) {
    if (size > oldSize) ftruncateSync(fd, oldSize)
    throw error
  }
}
