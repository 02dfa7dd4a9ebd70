import { type FileHandle, open, truncate } from 'node:fs/promises'
import { AppError } from '@wrenn/base'
import { run } from '../exec.js'
import { runCommand } from './command.js'

const BLOCK = 4096
const INODE = 256
const USUAL_SLACK = 0.03
/** The file system's own, lost+found, and slack. */
const RESERVED_INODES = 64
/** Any fixed values do, but no two layers of one overlay may have the same: overlayfs tells them apart by it. */
const LAYER_UUIDS = {
  base: '57524e4e-4c41-4945-8000-000000000001',
  agent: '57524e4e-4c41-4945-8000-000000000002',
} as const

interface LayerOptions {
  /** What a capsule has this layer for. */
  readonly role: keyof typeof LAYER_UUIDS
  /** Seconds since 1970 for the file system's own times. */
  readonly epochSeconds: number
  /** Room beside what the content takes, for attributes above all, of which each may take a block. @default 0.03 */
  readonly slack?: number
  readonly signal?: AbortSignal | undefined
}

/**
 * Makes a read-only ext4 file of a folder without mounting anything: as large as the content plus a little slack, without
 * journal, and equal for equal folders.
 */
export async function createLayer(folder: string, path: string, options: LayerOptions): Promise<void> {
  const { blocks, inodes } = await measureTree(folder, options.signal)
  const inodeBlocks = Math.ceil((inodes * INODE) / BLOCK)
  const uuid = LAYER_UUIDS[options.role]
  const total = Math.ceil((blocks + inodeBlocks) * (1 + (options.slack ?? USUAL_SLACK))) + 1024
  await runCommand(
    'mkfs.ext4',
    [
      ...['-q', '-F', '-b', String(BLOCK), '-I', String(INODE), '-m', '0', '-N', String(inodes), '-U', uuid],
      ...['-O', '^has_journal,^metadata_csum,^resize_inode'],
      ...['-E', `hash_seed=${uuid},lazy_itable_init=0,nodiscard,root_owner=0:0`],
      ...['-d', folder, path, `${total * (BLOCK / 1024)}k`],
    ],
    {
      signal: options.signal,
      timeoutMs: MKFS_TIMEOUT_MS,
      debianPackage: 'e2fsprogs',
      env: { E2FSPROGS_FAKE_TIME: String(options.epochSeconds), SOURCE_DATE_EPOCH: String(options.epochSeconds) },
    },
  )
  await normaliseInodes(path)
}

/** What a folder holds, itself not counted: files that are the same one count once, folders and links a block at least. */
const MEASURE = `find "$1" -mindepth 1 -xdev -printf '%y %i %n %s\\n' | awk '
  $1 != "d" && $3 > 1 && seen[$2]++ { next }
  { inodes++; b = ($1 == "d" || $1 == "f") ? int(($4 + 4095) / 4096) : 1; blocks += ($1 == "d" && b < 1) ? 1 : b }
  END { printf "%d %d", blocks, inodes }'`
const MEASURE_TIMEOUT_MS = 600_000
/** It copies all that is in the folder. */
const MKFS_TIMEOUT_MS = 1_200_000

/** Blocks and inodes that a folder's content takes, rounded up. Names may be any bytes, which `readdir` of Node.js has no strings for. */
async function measureTree(
  folder: string,
  signal: AbortSignal | undefined,
): Promise<{ blocks: number; inodes: number }> {
  const options = { timeoutMs: MEASURE_TIMEOUT_MS, ...(signal && { signal }) }
  const printed = await run('sh', ['-c', MEASURE, 'sh', folder], options)
  const [blocks, inodes] = printed.split(' ').map(Number)
  return { blocks: blocks ?? 0, inodes: RESERVED_INODES + (inodes ?? 0) }
}

/**
 * `mkfs.ext4 -d` copies access and change times from the folder, which differ each time it is made. Both become the
 * modification time, so equal content gives equal bytes. Possible in place because layers carry no metadata checksums.
 * @see https://docs.kernel.org/filesystems/ext4/inodes.html
 */
async function normaliseInodes(path: string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    const layout = await readLayout(file)
    for (const [table, count] of layout.tables) {
      const bytes = Buffer.alloc(count * INODE)
      await file.read(bytes, 0, bytes.length, table)
      for (let at = 0; at < bytes.length; at += INODE) normaliseInode(bytes.subarray(at, at + INODE))
      await file.write(bytes, 0, bytes.length, table)
    }
  } finally {
    await file.close()
  }
}

const inodeField = { mode: 0x00, atime: 0x08, ctime: 0x0c, mtime: 0x10, generation: 0x64 } as const
const inodeExtra = { ctime: 0x84, mtime: 0x88, atime: 0x8c, crtime: 0x90, crtimeNs: 0x94 } as const

function normaliseInode(inode: Buffer): void {
  if (inode.readUInt16LE(inodeField.mode) === 0) return
  const mtime = inode.readUInt32LE(inodeField.mtime)
  for (const field of [inodeField.atime, inodeField.ctime, inodeExtra.crtime]) inode.writeUInt32LE(mtime, field)
  for (const field of [inodeExtra.mtime, inodeExtra.atime, inodeExtra.ctime, inodeExtra.crtimeNs]) {
    inode.writeUInt32LE(0, field)
  }
  inode.writeUInt32LE(0, inodeField.generation)
}

interface Ext4Layout {
  /** Byte offset and number of inodes of each group's table. */
  readonly tables: readonly (readonly [number, number])[]
}

async function readLayout(file: FileHandle): Promise<Ext4Layout> {
  const superblock = Buffer.alloc(1024)
  await file.read(superblock, 0, 1024, 1024)
  if (superblock.readUInt16LE(0x38) !== 0xef53 || superblock.readUInt16LE(0x58) !== INODE) {
    throw new AppError('internal', 'mkfs.ext4 made a file system of an unexpected shape.')
  }
  const inodes = superblock.readUInt32LE(0x00)
  const perGroup = superblock.readUInt32LE(0x28)
  const descriptorSize = superblock.readUInt16LE(0xfe) || 32
  const groups = inodes / perGroup
  const descriptors = Buffer.alloc(groups * descriptorSize)
  await file.read(descriptors, 0, descriptors.length, BLOCK)
  const tables = Array.from({ length: groups }, (_, group) => {
    return [descriptors.readUInt32LE(group * descriptorSize + 0x08) * BLOCK, perGroup] as const
  })
  return { tables }
}

/**
 * Makes an empty writable file system in a sparse file of `sizeMib`.
 *
 * - The file starts as one hole, so mkfs marks the inode tables as already zero: the guest's kernel has nothing to
 *   initialise in the background, which would dirty every capsule's disk for no use.
 * - No blocks are reserved for root: the disk has one tenant. The journal stays at 16 MiB because it is rewritten in a
 *   circle and each of its blocks ends up in every snapshot. One inode per 8 KiB, for trees of small files.
 * - Delayed allocation stays on: it merges small writes, and short-lived files never reach the disk.
 */
export async function formatDisk(path: string, sizeMib: number, signal: AbortSignal | undefined): Promise<void> {
  const file = await open(path, 'wx', 0o600)
  await file.close()
  await truncate(path, sizeMib * 1_048_576)
  const journalMib = sizeMib >= 256 ? 16 : 4
  await runCommand(
    'mkfs.ext4',
    [
      ...['-q', '-F', '-b', String(BLOCK), '-i', '8192', '-m', '0', '-J', `size=${journalMib}`, '-O', '64bit'],
      ...['-L', 'capsule', '-E', 'root_owner=0:0,discard', path],
    ],
    { signal, debianPackage: 'e2fsprogs' },
  )
}
