import { AppError } from '@wrenn/base'
import { MAX_OPEN_ENTRIES, MAX_PATH_BYTES, MAX_VISITED, tooLarge } from './limits.js'
import { sortedNames } from './names.js'
import type { DirectorySource, Listing, Node, OverlayView } from './overlay-view.js'

/** What both points in time have at one path; at least one side is there. */
export interface Pair {
  readonly path: string
  readonly from: Node | undefined
  readonly to: Node | undefined
}

interface Side {
  readonly view: OverlayView
  readonly listing: Listing
}

interface Frame {
  /** Ends in a slash. */
  readonly path: string
  readonly from: Side | undefined
  readonly to: Side | undefined
  /** Ascending; consumed from `next`. */
  readonly names: readonly string[]
  next: number
  /** Directories whose entries are due when the names before `<name>/` are done; ascending by that key. */
  readonly pending: Pair[]
}

/**
 * Walks two views of a capsule's disk together, in the order of the bytes of the full paths (`a`, `a-b`, `a/x`). Parts of the
 * base image that neither has touched are not entered. Memory holds the names from the root down to the current directory.
 */
export class PairWalk {
  readonly #stack: Frame[] = []
  readonly #entered = { from: new Set<number>(), to: new Set<number>() }
  #openEntries = 0
  #visited = 0

  constructor(
    private readonly from: OverlayView,
    private readonly to: OverlayView,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** `start` itself first, then everything below it that may differ. Paths are bytes as latin1. */
  async *walk(start: Pair): AsyncGenerator<Pair, void, void> {
    yield start
    await this.#enter(start)
    for (let frame = this.#stack.at(-1); frame !== undefined; frame = this.#stack.at(-1)) {
      this.signal?.throwIfAborted()
      const name = frame.names[frame.next]
      const due = frame.pending[0]
      if (due !== undefined && (name === undefined || `${due.path}/` < frame.path + name)) {
        frame.pending.shift()
        await this.#enter(due)
      } else if (name !== undefined) {
        frame.next += 1
        const pair = await this.#pair(frame, name)
        if (pair === undefined) continue
        yield pair
        if (mayDifferBelow(pair)) insert(frame.pending, pair)
      } else {
        this.#leave()
      }
    }
  }

  async #pair(frame: Frame, name: string): Promise<Pair | undefined> {
    this.#visited += 1
    if (this.#visited > MAX_VISITED) throw tooLarge('their tree')
    const from = await frame.from?.view.child(frame.from.listing, name)
    const to = await frame.to?.view.child(frame.to.listing, name)
    if (from === undefined && to === undefined) return undefined
    return { path: frame.path + name, from, to }
  }

  async #enter({ path, from, to }: Pair): Promise<void> {
    if (path.length > MAX_PATH_BYTES) throw tooLarge('a path')
    this.#guard('from', from?.directory)
    this.#guard('to', to?.directory)
    const lower = from?.directory?.lower
    const sameLower = from?.directory !== undefined && to?.directory !== undefined && lower === to.directory.lower
    const fromSide = await side(this.from, from?.directory)
    const toSide = await side(this.to, to?.directory)
    const names = await sortedNames([
      ...[fromSide, toSide].map((part) => part?.listing.upper),
      // What lies below in both is the same in both, unless one of them covers it.
      ...(sameLower ? [] : [fromSide, toSide].map((part) => part?.listing.lower)),
    ])
    this.#openEntries += names.length
    if (this.#openEntries > MAX_OPEN_ENTRIES) throw tooLarge('a branch of their tree')
    const prefix = path.endsWith('/') ? path : `${path}/`
    this.#stack.push({ path: prefix, from: fromSide, to: toSide, names, next: 0, pending: [] })
  }

  #leave(): void {
    this.#openEntries -= this.#stack.pop()?.names.length ?? 0
  }

  /** A directory has one parent: one that is met again is part of a circle. */
  #guard(which: 'from' | 'to', source: DirectorySource | undefined): void {
    if (source?.upper === undefined) return
    if (this.#entered[which].has(source.upper)) throw circular(source.upper)
    this.#entered[which].add(source.upper)
  }
}

async function side(view: OverlayView, source: DirectorySource | undefined): Promise<Side | undefined> {
  return source === undefined ? undefined : { view, listing: await view.list(source) }
}

function mayDifferBelow({ from, to }: Pair): boolean {
  const a = from?.directory
  const b = to?.directory
  if (a === undefined || b === undefined) return a !== b
  const bothUntouched = a.upper === undefined && b.upper === undefined
  return !(bothUntouched && a.lower === b.lower)
}

/** Few are pending at a time: those whose name a later name begins with. */
function insert(pending: Pair[], pair: Pair): void {
  let at = pending.length
  while (at > 0 && `${pending[at - 1]?.path}/` > `${pair.path}/`) at -= 1
  pending.splice(at, 0, pair)
}

function circular(inode: number): AppError {
  return new AppError('snapshot_damaged', `The capsule's disk is damaged: directory inode ${inode} has two parents.`)
}
