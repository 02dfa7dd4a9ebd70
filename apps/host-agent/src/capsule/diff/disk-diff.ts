import { Ext4 } from '../../host/ext4/index.js'
import type { ChangedPart, FileChange, FileKind } from './change.js'
import { hasSharedContent, sameContent } from './content.js'
import type { DiffInput } from './input.js'
import { type Node, OverlayView } from './overlay-view.js'
import { pathNames } from './path.js'
import { SharedBlocks } from './shared-blocks.js'
import { type Pair, PairWalk } from './walk.js'

/** Results kept for files with several names, which would otherwise be compared once per name. */
const MEMO_SIZE = 4096

/**
 * The files that differ between two disks of one capsule, as a user inside sees them, sorted by the bytes of their paths. Reads
 * the disks where they lie, without mounting or copying them. Memory is flat (16 MiB and the names of the current branch);
 * content is read only where the disk files do not share their blocks.
 * @throws AppError `snapshot_damaged` for a disk that contradicts itself, `too_large` beyond the limits of `limits.ts`,
 * `invalid_request` for a path that is not absolute; the signal's reason.
 */
export async function* diffDisks(input: DiffInput): AsyncGenerator<FileChange, void, void> {
  const { signal } = input
  await using from = await Ext4.open(input.fromDisk, { signal })
  await using to = await Ext4.open(input.toDisk, { signal })
  await using base = await Ext4.open(input.basePath, { signal })
  const shared = await SharedBlocks.between(input.fromDisk, input.toDisk, signal)
  const views = { from: new OverlayView(from, base), to: new OverlayView(to, base) }
  const compare = new Comparison(views, base, shared)
  const start = await locate(views, pathNames(input.path))
  if (start.from === undefined && start.to === undefined) return
  for await (const pair of new PairWalk(views.from, views.to, signal).walk(start)) {
    const change = await compare.change(pair)
    if (change) yield change
  }
}

interface Views {
  readonly from: OverlayView
  readonly to: OverlayView
}

async function locate(views: Views, names: readonly string[]): Promise<Pair> {
  const from = await views.from.find(names)
  const to = await views.to.find(names)
  return { path: `/${names.join('/')}`, from, to }
}

class Comparison {
  readonly #memo = new Map<string, boolean>()

  constructor(
    private readonly views: Views,
    private readonly base: Ext4,
    private readonly shared: SharedBlocks,
  ) {}

  async change({ path, from, to }: Pair): Promise<FileChange | undefined> {
    const bytes = Buffer.from(path, 'latin1')
    if (to === undefined) return from && describe('removed', bytes, from, [])
    if (from === undefined) return describe('added', bytes, to, [])
    const what = await this.#parts(from, to)
    return what.length === 0 ? undefined : describe('changed', bytes, to, what)
  }

  async #parts(from: Node, to: Node): Promise<ChangedPart[]> {
    const isSameInode = from.disk === to.disk && from.inode.number === to.inode.number
    if (isSameInode && from.content.inode.number === to.content.inode.number) return []
    if (await this.#isUntouched(from, to)) return []
    const a = from.inode
    const b = to.inode
    const sameKind = a.kind === b.kind
    const parts: ChangedPart[] = []
    if (sameKind && a.kind === 'file' && !(await this.#sameFile(from, to))) parts.push('content')
    if (sameKind && (a.device?.major !== b.device?.major || a.device?.minor !== b.device?.minor)) parts.push('content')
    // A symlink's mode means nothing.
    if (a.permissions !== b.permissions && !(sameKind && a.kind === 'symlink')) parts.push('mode')
    if (a.uid !== b.uid || a.gid !== b.gid) parts.push('owner')
    if (!sameKind) parts.push('type')
    if (sameKind && a.kind === 'symlink' && !(await sameTarget(from, to))) parts.push('target')
    if (!(await this.#sameXattrs(from, to))) parts.push('xattr')
    return parts
  }

  /** The way of nearly all files: neither the inode nor a block of content was written since the disks parted. */
  async #isUntouched(from: Node, to: Node): Promise<boolean> {
    const hasOwnContent = from.content.inode === from.inode && to.content.inode === to.inode
    const isOrdinary = hasOwnContent && from.inode.kind === 'file' && from.disk.isMappedByInode(from.inode)
    const isOnCapsuleDisks = from.disk !== this.base && to.disk !== this.base
    if (!isOrdinary || !isOnCapsuleDisks || from.inode.number !== to.inode.number) return false
    if (from.inode.xattrBlock !== 0 || !from.inode.bytes.equals(to.inode.bytes)) return false
    return await hasSharedContent(from, to, this.shared)
  }

  async #sameFile(from: Node, to: Node): Promise<boolean> {
    const a = from.content
    const b = to.content
    if (a.inode.links === 1 && b.inode.links === 1) return await this.#compareContent(from, to)
    const key = `${a.disk === this.base}:${a.inode.number}:${b.disk === this.base}:${b.inode.number}`
    const known = this.#memo.get(key)
    if (known !== undefined) return known
    const same = await this.#compareContent(from, to)
    if (this.#memo.size >= MEMO_SIZE) this.#memo.clear()
    this.#memo.set(key, same)
    return same
  }

  async #compareContent(from: Node, to: Node): Promise<boolean> {
    const isOnCapsuleDisks = from.content.disk !== this.base && to.content.disk !== this.base
    return await sameContent(from.content, to.content, isOnCapsuleDisks ? this.shared : undefined)
  }

  async #sameXattrs(from: Node, to: Node): Promise<boolean> {
    const a = await this.views.from.xattrs(from)
    const b = await this.views.to.xattrs(to)
    return a.size === b.size && [...a].every(([name, value]) => b.get(name)?.equals(value) === true)
  }
}

async function sameTarget(from: Node, to: Node): Promise<boolean> {
  if (from.inode.size !== to.inode.size) return false
  return (await from.disk.target(from.inode)).equals(await to.disk.target(to.inode))
}

function describe(
  change: FileChange['change'],
  path: Buffer,
  { inode }: Node,
  what: readonly ChangedPart[],
): FileChange {
  const type = kindOf(inode.kind)
  const size = type === 'file' || type === 'symlink' ? inode.size : 0
  return { change, path, type, size, what }
}

function kindOf(kind: Node['inode']['kind']): FileKind {
  return kind === 'file' || kind === 'directory' || kind === 'symlink' ? kind : 'other'
}
