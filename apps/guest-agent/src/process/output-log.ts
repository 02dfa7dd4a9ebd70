import { DiskBudget } from './disk-budget.js'
import type { OutputChunk, OutputKind } from './output-chunk.js'
import { SpillFile } from './spill-file.js'

/** How much of one process's output is kept for readers that come later or back. */
export interface LogLimits {
  /** Newest output kept in memory. */
  readonly memoryBytes: number
  /** Older output kept on disk; beyond it the oldest is dropped. */
  readonly diskBytes: number
  /** For the logs of all processes together. @default see `DiskBudget` */
  readonly totalDiskBytes?: number
}

/** 1 MiB in memory makes a short command cost no disk; 256 MiB on disk is what a reader may miss of a long one. */
export const defaultLogLimits: LogLimits = { memoryBytes: 1024 * 1024, diskBytes: 256 * 1024 * 1024 }

/** Small writes collect in one buffer up to this size. */
const SLAB_BYTES = 32 * 1024
const SMALL_CHUNK_BYTES = 4 * 1024
const MAX_READ_BYTES = 64 * 1024

interface OutputRecord {
  readonly kind: OutputKind
  readonly offset: number
  readonly buffer: Buffer
  length: number
}

/**
 * The output of one process as one sequence of bytes with the stream's kind kept per record. The newest part is in memory;
 * what leaves memory goes to disk, so a short command never touches the disk and a long one never fills memory.
 */
export class OutputLog {
  readonly #limits: LogLimits
  readonly #spill: SpillFile
  #records: OutputRecord[] = []
  #memoryBytes = 0
  #end = 0

  constructor(directory: string, limits: LogLimits, onSpilled: () => void, budget = new DiskBudget(() => false)) {
    this.#limits = limits
    this.#spill = new SpillFile(directory, limits.diskBytes, onSpilled, budget)
  }

  /** Offset after the last byte produced. */
  get end(): number {
    return this.#end
  }

  /** Offset of the oldest byte still kept. */
  get start(): number {
    return this.#spill.start ?? this.#records[0]?.offset ?? this.#end
  }

  get memoryBytes(): number {
    return this.#memoryBytes
  }

  /** The disk cannot keep up; the producer should wait until `onSpilled`. */
  get isCongested(): boolean {
    return this.#spill.pendingBytes > this.#limits.memoryBytes
  }

  /** Takes over `data`. */
  append(kind: OutputKind, data: Buffer): void {
    // Records are no larger than what the disk's index can find again.
    for (let at = 0; at < data.length; at += MAX_READ_BYTES) this.#append(kind, data.subarray(at, at + MAX_READ_BYTES))
  }

  #append(kind: OutputKind, data: Buffer): void {
    if (!this.#fitsLast(kind, data)) this.#push(kind, data)
    this.#end += data.length
    this.#memoryBytes += data.length
    this.#evict()
  }

  /** The bytes at `offset` when they are in memory. */
  readMemory(offset: number): OutputChunk | undefined {
    const record = this.#find(offset)
    if (record === undefined) return undefined
    const from = offset - record.offset
    const data = record.buffer.subarray(from, Math.min(record.length, from + MAX_READ_BYTES))
    return data.length === 0 ? undefined : { kind: record.kind, offset, data }
  }

  /** A block of consecutive chunks at `offset` that have left memory; empty when they are no longer kept. */
  readDisk(offset: number): Promise<readonly OutputChunk[]> {
    return this.#spill.read(offset)
  }

  /** The first offset after `offset` that can be read, when `offset` itself no longer can. */
  nextKept(offset: number): number {
    const candidates = [...this.#spill.starts, ...this.#records.map((record) => record.offset), this.#end]
    return candidates.find((candidate) => candidate > offset) ?? this.#end
  }

  /** Resolves when everything that has left memory is on disk, or given up. */
  flush(): Promise<void> {
    return this.#spill.flush()
  }

  /** Gives back the disk space, keeps what is in memory. @returns false when nothing was on disk */
  dropDisk(): boolean {
    return this.#spill.clear()
  }

  /** Deletes what is on disk and forgets what is in memory. */
  dispose(): void {
    this.#records = []
    this.#memoryBytes = 0
    this.#spill.dispose()
  }

  #fitsLast(kind: OutputKind, data: Buffer): boolean {
    const last = this.#records.at(-1)
    if (last === undefined || last.kind !== kind || data.length > last.buffer.length - last.length) return false
    data.copy(last.buffer, last.length)
    last.length += data.length
    return true
  }

  #push(kind: OutputKind, data: Buffer): void {
    if (data.length >= SMALL_CHUNK_BYTES) {
      this.#records.push({ kind, offset: this.#end, buffer: data, length: data.length })
      return
    }
    // A process that writes little gets a small slab, one that goes on gets full ones.
    const size = this.#records.length === 0 ? SMALL_CHUNK_BYTES : SLAB_BYTES
    const buffer = Buffer.allocUnsafeSlow(size)
    data.copy(buffer)
    this.#records.push({ kind, offset: this.#end, buffer, length: data.length })
  }

  #evict(): void {
    while (this.#memoryBytes > this.#limits.memoryBytes && this.#records.length > 1) {
      const oldest = this.#records.shift()
      if (oldest === undefined) return
      this.#memoryBytes -= oldest.length
      this.#spill.append({
        kind: oldest.kind,
        offset: oldest.offset,
        data: oldest.buffer.subarray(0, oldest.length),
      })
    }
  }

  #find(offset: number): OutputRecord | undefined {
    let low = 0
    let high = this.#records.length - 1
    while (low <= high) {
      const middle = (low + high) >> 1
      const record = this.#records[middle]
      if (record === undefined) return undefined
      if (offset < record.offset) high = middle - 1
      else if (offset >= record.offset + record.length) low = middle + 1
      else return record
    }
    return undefined
  }
}
