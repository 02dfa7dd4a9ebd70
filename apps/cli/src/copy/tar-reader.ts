import { AppError } from '@wrenn/base'
import {
  BLOCK_BYTES,
  damaged,
  type EntryType,
  paddingOf,
  parseHead,
  parseRecords,
  type RawHead,
  sizeOf,
  typeOf,
  untilZero,
} from './tar-format.js'

/** An extended header or a long name beyond this is not from any tar. */
const MAX_EXTENSION_BYTES = 1024 * 1024
const MAX_SPARSE_PIECES = 1_000_000

/** A run of bytes of a file; what lies between runs are holes. */
export interface Extent {
  readonly offset: number
  readonly length: number
}

/** An entry of an archive. Its bytes must be read, or else they are skipped, before the next one comes. */
export interface TarEntry {
  readonly type: EntryType
  /** As the archive says; nothing about it can be trusted. */
  readonly path: Buffer
  readonly link: Buffer
  readonly mode: number
  /** With holes. */
  readonly size: number
  readonly mtimeSec: number
  /** Where the bytes of `data` belong, in order. */
  readonly extents: readonly Extent[]
  data(): AsyncGenerator<Buffer, void>
}

/**
 * Reads a tar in the formats ustar, pax and GNU, whoever wrote it.
 * @throws AppError `invalid_request` when it is damaged or ends without its end
 */
export async function* readTar(source: AsyncIterable<Uint8Array>): AsyncGenerator<TarEntry, void> {
  const bytes = new ByteReader(source)
  let extra: Extra = {}
  for (;;) {
    const head = parseHead(await bytes.take(BLOCK_BYTES))
    if (head === undefined) break
    const extension = await readExtension(head, bytes)
    if (extension !== undefined) {
      extra = { ...extra, ...extension }
      continue
    }
    const entry = await TarItem.open(head, extra, bytes)
    extra = {}
    yield entry
    await entry.skip()
  }
  await bytes.drain()
}

interface Extra {
  readonly path?: Buffer
  readonly link?: Buffer
  readonly records?: ReadonlyMap<string, Buffer>
}

/** A record that is ASCII in any tar: a number. */
function recordText({ records }: Extra, key: string): string | undefined {
  return records?.get(key)?.toString('latin1')
}

/** What an entry of its own says of the entry behind it. */
async function readExtension(head: RawHead, bytes: ByteReader): Promise<Extra | undefined> {
  if (!'xgLK'.includes(head.flag)) return undefined
  if (head.size > MAX_EXTENSION_BYTES) throw damaged()
  const body = (await bytes.take(head.size + paddingOf(head.size))).subarray(0, head.size)
  if (head.flag === 'x') return { records: parseRecords(body) }
  // Records for the whole archive are of no use for what is copied.
  if (head.flag === 'g') return {}
  const name = untilZero(body)
  return head.flag === 'L' ? { path: name } : { link: name }
}

class TarItem implements TarEntry {
  readonly type: EntryType
  readonly path: Buffer
  readonly link: Buffer
  readonly mode: number
  readonly size: number
  readonly mtimeSec: number
  readonly extents: readonly Extent[]
  readonly #bytes: ByteReader
  #left: number
  #padding: number

  private constructor(head: RawHead, extra: Extra, bytes: ByteReader, packed: number, sparse: Sparse | undefined) {
    this.type = typeOf(head.flag)
    this.path = extra.records?.get('GNU.sparse.name') ?? extra.records?.get('path') ?? extra.path ?? head.path
    this.link = extra.records?.get('linkpath') ?? extra.link ?? head.link
    this.mode = head.mode
    const mtime = Number(recordText(extra, 'mtime') ?? head.mtimeSec)
    this.mtimeSec = Number.isFinite(mtime) ? mtime : 0
    this.#left = packed - (sparse?.mapBytes ?? 0)
    this.#padding = paddingOf(packed)
    this.size = sparse?.realSize ?? packed
    this.extents = sparse?.extents ?? [{ offset: 0, length: packed }]
    this.#bytes = bytes
  }

  static async open(head: RawHead, extra: Extra, bytes: ByteReader): Promise<TarItem> {
    const said = recordText(extra, 'size')
    const hasData = ['file', 'other'].includes(typeOf(head.flag))
    const packed = hasData ? sizeOf(said === undefined ? head.size : Number(said)) : 0
    const isSparse = recordText(extra, 'GNU.sparse.major') === '1'
    const sparse = isSparse ? await readMap(bytes, packed, extra) : undefined
    return new TarItem(head, extra, bytes, packed, sparse)
  }

  async *data(): AsyncGenerator<Buffer, void> {
    while (this.#left > 0) {
      const piece = await this.#bytes.some(this.#left)
      this.#left -= piece.length
      yield piece
    }
  }

  async skip(): Promise<void> {
    for (let rest = this.#left + this.#padding; rest > 0; ) rest -= (await this.#bytes.some(rest)).length
    this.#left = 0
    this.#padding = 0
  }
}

interface Sparse {
  readonly realSize: number
  readonly extents: readonly Extent[]
  readonly mapBytes: number
}

/** How many runs there are, then offset and length of each: decimal numbers, a line each, up to a whole block. */
async function readMap(bytes: ByteReader, packed: number, extra: Extra): Promise<Sparse> {
  const realSize = sizeOf(Number(recordText(extra, 'GNU.sparse.realsize')))
  let partial = ''
  let mapBytes = 0
  const numbers: number[] = []
  while (numbers.length === 0 || numbers.length < 1 + 2 * (numbers[0] ?? 0)) {
    if (mapBytes + BLOCK_BYTES > packed) throw damaged()
    const lines = (partial + (await bytes.take(BLOCK_BYTES)).toString('latin1')).split('\n')
    mapBytes += BLOCK_BYTES
    partial = lines.pop() ?? ''
    for (const line of lines) if (/^\d+$/.test(line)) numbers.push(sizeOf(Number(line)))
    if ((numbers[0] ?? 0) > MAX_SPARSE_PIECES) throw damaged()
  }
  const count = numbers[0] ?? 0
  const extents: Extent[] = []
  let end = 0
  let total = 0
  for (let at = 1; at < 1 + 2 * count; at += 2) {
    const [offset = 0, length = 0] = [numbers[at], numbers[at + 1]]
    if (offset < end || offset + length > realSize) throw damaged()
    end = offset + length
    total += length
    extents.push({ offset, length })
  }
  if (total !== packed - mapBytes) throw damaged()
  return { realSize, extents, mapBytes }
}

/** Bytes of a stream in the portions that a reader asks for. */
class ByteReader {
  readonly #source: AsyncIterator<Uint8Array>
  #buffered: Buffer = Buffer.alloc(0)

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** Exactly so many bytes. */
  async take(length: number): Promise<Buffer> {
    if (this.#buffered.length >= length) return this.#cut(length)
    const pieces: Buffer[] = []
    for (let left = length; left > 0; ) {
      const piece = await this.some(left)
      pieces.push(piece)
      left -= piece.length
    }
    return Buffer.concat(pieces)
  }

  /** At least one byte and at most so many. */
  async some(max: number): Promise<Buffer> {
    while (this.#buffered.length === 0) {
      const next = await this.#source.next()
      if (next.done) throw new AppError('invalid_request', 'The archive from the capsule was cut short.')
      this.#buffered = Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength)
    }
    return this.#cut(Math.min(max, this.#buffered.length))
  }

  /** Reads to the end, where the source says whether all went well. */
  async drain(): Promise<void> {
    for (let next = await this.#source.next(); !next.done; next = await this.#source.next()) {
      // zeros, by which tars fill their last record
    }
  }

  #cut(length: number): Buffer {
    const cut = this.#buffered.subarray(0, length)
    this.#buffered = this.#buffered.subarray(length)
    return cut
  }
}
