import { closeSync, mkdirSync, openSync, read, rmSync, writev } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { isErrno } from '@wrenn/base'
import type { DiskBudget } from './disk-budget.js'
import type { OutputChunk, OutputKind } from './output-chunk.js'

// Calls on open descriptors only: see system/as-user.ts for why the agent makes no asynchronous call with a path.
const readAsync = promisify(read)
const writevAsync = promisify(writev)

const SEGMENT_BYTES = 16 * 1024 * 1024
const INDEX_STEP_BYTES = 64 * 1024
/** More than one index step plus one largest record, so that a read at an index entry always covers the wanted offset. */
const BLOCK_BYTES = 4 * INDEX_STEP_BYTES
const HEADER_BYTES = 5
const kinds: readonly OutputKind[] = ['stdout', 'stderr', 'pty']

interface Segment {
  readonly path: string
  readonly fd: number
  /** Output offsets [start, end) the segment holds. */
  readonly start: number
  end: number
  size: number
  readonly index: { readonly offset: number; readonly position: number }[]
  readers: number
  dropped: boolean
}

/** Output that has left memory, in numbered segment files of framed records; the oldest segments go when the cap is reached. */
export class SpillFile {
  readonly #directory: string
  readonly #capBytes: number
  readonly #onSpilled: () => void
  readonly #budget: DiskBudget
  #segments: Segment[] = []
  #queue: OutputChunk[] = []
  #writing: readonly OutputChunk[] = []
  #pendingBytes = 0
  #sequence = 0
  #state: 'idle' | 'writing' | 'disposed' = 'idle'
  #work: Promise<void> = Promise.resolve()

  /** On a full disk, or beyond the `budget` of all logs, ended processes' output goes before this file's own oldest. */
  constructor(directory: string, capBytes: number, onSpilled: () => void, budget: DiskBudget) {
    this.#directory = directory
    this.#capBytes = capBytes
    this.#onSpilled = onSpilled
    this.#budget = budget
  }

  get pendingBytes(): number {
    return this.#pendingBytes
  }

  /** Offset of the oldest byte held, on disk or on its way; absent when nothing was spilled. */
  get start(): number | undefined {
    return this.#segments[0]?.start ?? (this.#writing[0] ?? this.#queue[0])?.offset
  }

  /** Where each readable stretch begins, in order. */
  get starts(): readonly number[] {
    const pending = [...this.#writing, ...this.#queue].map((chunk) => chunk.offset)
    return [...this.#segments.map((segment) => segment.start), ...pending]
  }

  /** Queues a chunk for the disk; it can be read at once. */
  append(chunk: OutputChunk): void {
    if (this.#state === 'disposed') return
    this.#queue.push(chunk)
    this.#pendingBytes += chunk.data.length
    if (this.#state === 'idle') this.#work = this.#writeAll()
  }

  /** Resolves when everything appended so far is in its file or given up. */
  flush(): Promise<void> {
    return this.#work
  }

  /** Some chunks from `offset` on, the first one cut to begin there; none when the place is not held. */
  async read(offset: number): Promise<readonly OutputChunk[]> {
    const pending = [...this.#writing, ...this.#queue].find((chunk) => holds(chunk, offset))
    if (pending !== undefined) return [from(pending, offset)]
    const segment = this.#segments.find((each) => offset >= each.start && offset < each.end)
    return segment === undefined ? [] : this.#readSegment(segment, offset)
  }

  /** Gives its disk space back; what was there shows as a lost range. @returns false when there was none */
  clear(): boolean {
    const segments = this.#segments.splice(0)
    for (const segment of segments) this.#drop(segment)
    return segments.length > 0
  }

  /** Removes the files; what is being written goes with them. */
  dispose(): void {
    this.#state = 'disposed'
    this.#queue = []
    this.clear()
    if (this.#sequence > 0) rmSync(this.#directory, { recursive: true, force: true })
  }

  async #writeAll(): Promise<void> {
    this.#state = 'writing'
    while (this.#queue.length > 0 && !this.#isDisposed()) {
      this.#writing = this.#queue
      this.#queue = []
      await this.#writeBatch(this.#writing)
      for (const chunk of this.#writing) this.#pendingBytes -= chunk.data.length
      this.#writing = []
      this.#onSpilled()
    }
    if (!this.#isDisposed()) this.#state = 'idle'
  }

  #isDisposed(): boolean {
    return this.#state === 'disposed'
  }

  /** A write that fails loses output, never the process nor the agent: the gap shows as a lost range. */
  async #writeBatch(batch: readonly OutputChunk[]): Promise<void> {
    for (;;) {
      try {
        return await this.#tryWrite(batch)
      } catch (error) {
        if (isErrno(error, 'ENOSPC', 'EDQUOT') && (this.#budget.free() || this.#dropOldest())) continue
        return this.#dropUnused()
      }
    }
  }

  async #tryWrite(batch: readonly OutputChunk[]): Promise<void> {
    const first = batch[0]
    if (first === undefined) return
    const segment = this.#openSegment(first.offset)
    segment.readers++
    try {
      const before = segment.size
      await writeRecords(segment, batch)
      // What was dropped meanwhile is not there any more.
      if (!segment.dropped) this.#budget.add(segment.size - before)
    } finally {
      release(segment)
    }
  }

  /** Newer output is worth more than older; the segment that is being written stays. */
  #dropOldest(): boolean {
    const oldest = this.#segments.length > 1 ? this.#segments.shift() : undefined
    if (oldest !== undefined) this.#drop(oldest)
    return oldest !== undefined
  }

  #dropUnused(): void {
    const last = this.#segments.at(-1)
    if (last?.size !== 0) return
    this.#segments.pop()
    this.#drop(last)
  }

  #openSegment(offset: number): Segment {
    const last = this.#segments.at(-1)
    if (last !== undefined && last.size < SEGMENT_BYTES && last.end === offset) return last
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 })
    const path = join(this.#directory, `${this.#sequence++}.log`)
    const fd = openSync(path, 'wx+', 0o600)
    const segment = { path, fd, start: offset, end: offset, size: 0, index: [], readers: 0, dropped: false }
    this.#segments.push(segment)
    this.#trim()
    return segment
  }

  #trim(): void {
    let total = this.#segments.reduce((sum, segment) => sum + segment.size, SEGMENT_BYTES)
    while (total > this.#capBytes && this.#segments.length > 1) {
      const oldest = this.#segments.shift()
      if (oldest === undefined) return
      total -= oldest.size
      this.#drop(oldest)
    }
    while (this.#budget.isExceeded(this.#directory) && (this.#budget.free() || this.#dropOldest())) {
      // until it is kept, or this log is down to one segment
    }
  }

  #drop(segment: Segment): void {
    this.#budget.add(-segment.size)
    drop(segment)
  }

  async #readSegment(segment: Segment, offset: number): Promise<readonly OutputChunk[]> {
    const entry = segment.index.findLast((each) => each.offset <= offset)
    if (entry === undefined) return []
    const block = Buffer.allocUnsafe(Math.min(BLOCK_BYTES, segment.size - entry.position))
    segment.readers++
    try {
      const { bytesRead } = await readAsync(segment.fd, block, 0, block.length, entry.position)
      return parseRecords(block.subarray(0, bytesRead), entry.offset, offset)
    } finally {
      release(segment)
    }
  }
}

async function writeRecords(segment: Segment, batch: readonly OutputChunk[]): Promise<void> {
  const parts: Buffer[] = []
  let size = 0
  const index: { offset: number; position: number }[] = []
  let indexed = segment.index.at(-1)?.position ?? Number.NEGATIVE_INFINITY
  for (const chunk of batch) {
    const position = segment.size + size
    if (position - indexed >= INDEX_STEP_BYTES) {
      index.push({ offset: chunk.offset, position })
      indexed = position
    }
    const header = Buffer.allocUnsafe(HEADER_BYTES)
    header[0] = kinds.indexOf(chunk.kind)
    header.writeUInt32BE(chunk.data.length, 1)
    parts.push(header, chunk.data)
    size += HEADER_BYTES + chunk.data.length
  }
  await writeFully(segment, parts, size)
  const last = batch.at(-1)
  segment.size += size
  segment.index.push(...index)
  if (last !== undefined) segment.end = last.offset + last.data.length
}

/** The kernel takes at most 1,024 pieces per call, and may take fewer bytes than asked. */
async function writeFully(segment: Segment, parts: readonly Buffer[], size: number): Promise<void> {
  let position = segment.size
  for (let first = 0; first < parts.length; first += 1000) {
    const group = parts.slice(first, first + 1000)
    const wanted = group.reduce((sum, part) => sum + part.length, 0)
    const { bytesWritten } = await writevAsync(segment.fd, group, position)
    if (bytesWritten !== wanted) throw Object.assign(new Error('Short write to the output log'), { code: 'ENOSPC' })
    position += wanted
  }
  if (position !== segment.size + size) throw new Error('The output log wrote other bytes than it counted')
}

function parseRecords(block: Buffer, firstOffset: number, wanted: number): readonly OutputChunk[] {
  const chunks: OutputChunk[] = []
  let offset = firstOffset
  for (let at = 0; at + HEADER_BYTES <= block.length; ) {
    const kind = kinds[block[at] ?? 0] ?? 'stdout'
    const length = block.readUInt32BE(at + 1)
    const data = block.subarray(at + HEADER_BYTES, at + HEADER_BYTES + length)
    const chunk = { kind, offset, data }
    if (holds(chunk, wanted) || offset > wanted) chunks.push(from(chunk, Math.max(offset, wanted)))
    offset += length
    at += HEADER_BYTES + length
  }
  return chunks.filter((chunk) => chunk.data.length > 0)
}

function holds(chunk: OutputChunk, offset: number): boolean {
  return offset >= chunk.offset && offset < chunk.offset + chunk.data.length
}

function from(chunk: OutputChunk, offset: number): OutputChunk {
  return offset === chunk.offset ? chunk : { ...chunk, offset, data: chunk.data.subarray(offset - chunk.offset) }
}

function drop(segment: Segment): void {
  segment.dropped = true
  rmSync(segment.path, { force: true })
  if (segment.readers === 0) closeSync(segment.fd)
}

function release(segment: Segment): void {
  segment.readers--
  if (segment.dropped && segment.readers === 0) closeSync(segment.fd)
}
