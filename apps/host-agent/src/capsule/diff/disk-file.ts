import { AppError } from '@wrenn/base'
import { Ext4 } from '../../host/ext4/index.js'
import { OverlayView } from './overlay-view.js'
import { pathNames } from './path.js'

/** A file on a capsule's disk, which lies on its base image. Nothing of them is mounted. */
export interface DiskFile {
  /** The data disk. It must not be written to while the file is read. */
  readonly disk: string
  readonly basePath: string
  /** Absolute, in the form of `pathText`, as a user inside the capsule sees it. */
  readonly path: string
  /** A larger file is refused. */
  readonly maxBytes: number
  readonly signal?: AbortSignal | undefined
}

/**
 * The content of a file, all of it.
 * @throws AppError `file_not_found`, `is_a_directory`, `too_large`, `snapshot_damaged`, `invalid_request` for a path that is not
 * absolute or names neither file nor directory; the signal's reason.
 */
export async function readDiskFile({ disk, basePath, path, maxBytes, signal }: DiskFile): Promise<Buffer> {
  const names = pathNames(path)
  await using upper = await Ext4.open(disk, { signal })
  await using base = await Ext4.open(basePath, { signal })
  const node = await new OverlayView(upper, base).find(names)
  if (node === undefined) throw new AppError('file_not_found', `There was no ${path} at that moment.`)
  const { kind } = node.inode
  if (kind === 'directory') throw new AppError('is_a_directory', `${path} was a directory at that moment.`)
  if (kind !== 'file') throw new AppError('invalid_request', `path: ${path} was no file at that moment, but a ${kind}.`)
  const { disk: place, inode } = node.content
  if (inode.size > maxBytes) {
    throw new AppError('too_large', `${path} had ${inode.size} bytes at that moment; up to ${maxBytes} are given.`)
  }
  return await place.read(inode, 0, inode.size)
}
