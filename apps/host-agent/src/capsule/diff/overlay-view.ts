import { type Ext4, type Inode, ROOT_INODE } from '../../host/ext4/index.js'
import { MAX_ENTRIES, tooLarge } from './limits.js'

/** Folder of the data disk that holds what the capsule changed; see `images/boot/initramfs-init`. */
const UPPER_FOLDER = 'upper'
const OVERLAY = 'trusted.overlay.'
const OPAQUE = `${OVERLAY}opaque`
const REDIRECT = `${OVERLAY}redirect`
const METACOPY = `${OVERLAY}metacopy`

/** An inode and the disk it is on. */
export interface Located {
  readonly disk: Ext4
  readonly inode: Inode
}

/** What a user inside sees at one path. */
export interface Node extends Located {
  /** Where a directory's entries come from. */
  readonly directory: DirectorySource | undefined
  /** Where a file's content is: elsewhere when only its metadata was copied up. */
  readonly content: Located
}

/** Inode numbers of the directories that are merged into one. */
export interface DirectorySource {
  readonly upper: number | undefined
  readonly lower: number | undefined
}

/** Names and inode numbers of both halves of a merged directory. */
export interface Listing {
  readonly upper: ReadonlyMap<string, number>
  readonly lower: ReadonlyMap<string, number>
}

/**
 * The overlay mount of a capsule, read from its two disks: whiteouts, opaque directories, redirects and metadata copies as in
 * https://docs.kernel.org/filesystems/overlayfs.html. What is mounted over it inside (/proc, /tmp, …) is not part of it.
 */
export class OverlayView {
  constructor(
    private readonly upper: Ext4,
    private readonly lower: Ext4,
  ) {}

  /** The root directory as a user inside sees it. */
  async root(): Promise<Node> {
    const folders = await collect(this.upper, await this.upper.inode(ROOT_INODE))
    const number = folders.get(UPPER_FOLDER)
    // A disk that was never booted shows the base image.
    if (number === undefined) return await this.#lowerNode(ROOT_INODE)
    return await this.#upperNode(await this.upper.inode(number), ROOT_INODE, new Map())
  }

  /** Names of a directory in both layers; {@link child} says which of them are seen. */
  async list({ upper, lower }: DirectorySource): Promise<Listing> {
    return { upper: await entriesOf(this.upper, upper), lower: await entriesOf(this.lower, lower) }
  }

  /** What is seen as `name` in the directory; `undefined` when nothing is, or a whiteout hides it. */
  async child(listing: Listing, name: string): Promise<Node | undefined> {
    const lower = listing.lower.get(name)
    const number = listing.upper.get(name)
    if (number === undefined) return lower === undefined ? undefined : await this.#lowerNode(lower)
    const inode = await this.upper.inode(number)
    if (isWhiteout(inode)) return undefined
    return await this.#upperNode(inode, lower, listing.lower)
  }

  /** What is seen at a path, given by its names as latin1. Symbolic links on the way are not followed, as a diff does not follow them. */
  async find(names: readonly string[]): Promise<Node | undefined> {
    let node: Node | undefined = await this.root()
    for (const name of names) {
      if (node?.directory === undefined) return undefined
      node = await this.child(await this.list(node.directory), name)
    }
    return node
  }

  /** Attributes that a user can see. */
  async xattrs({ disk, inode }: Located): Promise<ReadonlyMap<string, Buffer>> {
    const all = await disk.xattrs(inode)
    if (disk === this.lower || all.size === 0) return all
    return new Map([...all].filter(([name]) => !name.startsWith(OVERLAY)))
  }

  async #lowerNode(number: number): Promise<Node> {
    const here = { disk: this.lower, inode: await this.lower.inode(number) }
    const isDirectory = here.inode.kind === 'directory'
    return { ...here, content: here, directory: isDirectory ? { upper: undefined, lower: number } : undefined }
  }

  async #upperNode(inode: Inode, sameName: number | undefined, siblings: ReadonlyMap<string, number>): Promise<Node> {
    const here = { disk: this.upper, inode }
    if (inode.kind !== 'directory' && inode.kind !== 'file') return { ...here, content: here, directory: undefined }
    const xattrs = await this.upper.xattrs(inode)
    if (inode.kind === 'directory') {
      const lower = await this.#below(xattrs, sameName, siblings)
      const merged = lower?.kind === 'directory' ? lower.number : undefined
      return { ...here, content: here, directory: { upper: inode.number, lower: merged } }
    }
    const origin = xattrs.has(METACOPY) ? await this.#below(xattrs, sameName, siblings) : undefined
    return {
      ...here,
      content: origin?.kind === 'file' ? { disk: this.lower, inode: origin } : here,
      directory: undefined,
    }
  }

  /** The inode of the base image that lies below one of the upper folder. */
  async #below(
    xattrs: ReadonlyMap<string, Buffer>,
    sameName: number | undefined,
    siblings: ReadonlyMap<string, number>,
  ): Promise<Inode | undefined> {
    if (xattrs.get(OPAQUE)?.toString('latin1') === 'y') return undefined
    const redirect = xattrs.get(REDIRECT)?.toString('latin1')
    const number = redirect === undefined ? sameName : await this.#redirected(redirect, siblings)
    return number === undefined ? undefined : await this.lower.inode(number)
  }

  /** An absolute redirect starts at the base's root; any other names a neighbour below the same parent. */
  async #redirected(redirect: string, siblings: ReadonlyMap<string, number>): Promise<number | undefined> {
    if (!redirect.startsWith('/')) return siblings.get(redirect)
    let number: number | undefined = ROOT_INODE
    for (const name of redirect.split('/').filter((part) => part !== '')) {
      if (number === undefined) return undefined
      const inode: Inode = await this.lower.inode(number)
      number = inode.kind === 'directory' ? (await collect(this.lower, inode)).get(name) : undefined
    }
    return number
  }
}

function isWhiteout({ kind, device }: Inode): boolean {
  return kind === 'char' && device?.major === 0 && device.minor === 0
}

async function entriesOf(disk: Ext4, directory: number | undefined): Promise<ReadonlyMap<string, number>> {
  return directory === undefined ? new Map() : await collect(disk, await disk.inode(directory))
}

async function collect(disk: Ext4, directory: Inode): Promise<Map<string, number>> {
  const names = new Map<string, number>()
  for await (const { name, inode } of disk.entries(directory)) {
    names.set(name, inode)
    if (names.size > MAX_ENTRIES) throw tooLarge('a directory')
  }
  return names
}
