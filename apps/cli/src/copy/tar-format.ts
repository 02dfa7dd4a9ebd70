import { AppError } from '@wrenn/base'

/** Everything in a tar is a multiple of this (POSIX.1-2017, pax: ustar interchange format). */
export const BLOCK_BYTES = 512
/** Beyond it a size does not fit into the eleven octal digits of a header. */
const MAX_OCTAL_SIZE = 8 ** 11 - 1
const NAME_BYTES = 100

/** What of POSIX's type flags (ustar, byte 156) is told apart; devices and what is not known are `other`. */
export type EntryType = 'file' | 'hard link' | 'symlink' | 'directory' | 'fifo' | 'other'

const flags: Readonly<Record<Exclude<EntryType, 'other'>, string>> = {
  file: '0',
  'hard link': '1',
  symlink: '2',
  directory: '5',
  fifo: '6',
}

/** What a writer says of one entry. */
export interface EntryHead {
  readonly type: Exclude<EntryType, 'other'>
  readonly path: Buffer
  readonly mode: number
  /** Bytes that follow. */
  readonly size: number
  readonly mtimeNs: bigint
  /** Of links: where they lead. */
  readonly link?: Buffer
  /** The size with its holes, when the bytes that follow begin with a map of what is data (GNU sparse format 1.0). */
  readonly realSize?: number
}

/** The blocks that go before an entry's bytes. */
export function headOf(entry: EntryHead): Buffer {
  const records = recordsOf(entry)
  const plain = ustar(flags[entry.type], entry.path, entry.size, entry)
  if (records.length === 0) return plain
  const body = Buffer.concat(records)
  const head = ustar('x', Buffer.from('././@PaxHeader'), body.length, { mode: 0o644, mtimeNs: 0n })
  return Buffer.concat([head, padded(body), plain])
}

/** With zeros up to a whole block. */
export function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(paddingOf(bytes.length))])
}

/** Zeros after so many bytes until the next block begins. */
export function paddingOf(size: number): number {
  return (BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES
}

/** What does not fit into a header, as extended records. */
function recordsOf({ path, link, size, mtimeNs, realSize }: EntryHead): Buffer[] {
  const records: Buffer[] = []
  if (realSize !== undefined) {
    records.push(record('GNU.sparse.major', '1'), record('GNU.sparse.minor', '0'), record('GNU.sparse.name', path))
    records.push(record('GNU.sparse.realsize', String(realSize)))
  } else if (path.length > NAME_BYTES) {
    records.push(record('path', path))
  }
  if (link !== undefined && link.length > NAME_BYTES) records.push(record('linkpath', link))
  if (size > MAX_OCTAL_SIZE) records.push(record('size', String(size)))
  if (mtimeNs % 1_000_000_000n !== 0n || mtimeNs < 0n) records.push(record('mtime', seconds(mtimeNs)))
  return records
}

function seconds(ns: bigint): string {
  const sign = ns < 0n ? '-' : ''
  const size = ns < 0n ? -ns : ns
  return `${sign}${size / 1_000_000_000n}.${String(size % 1_000_000_000n).padStart(9, '0')}`
}

/** `length key=value\n`, where the length counts its own digits. */
function record(key: string, value: string | Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from('\n')])
  let length = rest.length
  while (length !== rest.length + String(length).length) length = rest.length + String(length).length
  return Buffer.concat([Buffer.from(String(length)), rest])
}

function ustar(
  flag: string,
  path: Buffer,
  size: number,
  { mode, mtimeNs, link }: Pick<EntryHead, 'mode' | 'mtimeNs' | 'link'>,
): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES)
  path.copy(block, 0, 0, NAME_BYTES)
  block.write(octal(mode, 7), 100)
  block.write(octal(0, 7), 108)
  block.write(octal(0, 7), 116)
  block.write(octal(size > MAX_OCTAL_SIZE ? 0 : size, 11), 124)
  block.write(octal(mtimeNs < 0n ? 0 : Number(mtimeNs / 1_000_000_000n), 11), 136)
  block.write(' '.repeat(8), 148)
  block.write(flag, 156)
  link?.copy(block, 157, 0, NAME_BYTES)
  block.write('ustar\x0000', 257)
  block.write(`${octal(checksum(block), 6)}\0 `, 148)
  return block
}

function octal(value: number, digits: number): string {
  return value.toString(8).padStart(digits, '0')
}

function checksum(block: Buffer): number {
  let sum = 0
  for (const byte of block) sum += byte
  return sum
}

/** A header as it stands in the archive, without what extended ones say. */
export interface RawHead {
  readonly flag: string
  readonly path: Buffer
  readonly link: Buffer
  readonly mode: number
  readonly size: number
  readonly mtimeSec: number
}

/** `undefined` for a block of zeros. @throws AppError `invalid_request` for what is no header */
export function parseHead(block: Buffer): RawHead | undefined {
  if (block.every((byte) => byte === 0)) return undefined
  const unsigned = Buffer.from(block)
  unsigned.fill(' ', 148, 156)
  if (checksum(unsigned) !== number(block, 148, 8)) throw damaged()
  const name = text(block, 0, NAME_BYTES)
  const prefix = block.toString('latin1', 257, 263) === 'ustar\0' ? text(block, 345, 155) : Buffer.alloc(0)
  return {
    flag: String.fromCharCode(block[156] ?? 0),
    path: prefix.length === 0 ? name : Buffer.concat([prefix, Buffer.from('/'), name]),
    link: text(block, 157, NAME_BYTES),
    mode: number(block, 100, 8) & 0o7777,
    size: sizeOf(number(block, 124, 12)),
    mtimeSec: number(block, 136, 12),
  }
}

/** The type of a header's flag. Archives from before POSIX mark a file by a zero byte, and `7` (contiguous) is one too. */
export function typeOf(flag: string): EntryType {
  if (flag === '\0' || flag === '7') return 'file'
  for (const type of ['file', 'hard link', 'symlink', 'directory', 'fifo'] as const)
    if (flags[type] === flag) return type
  return 'other'
}

/** The records of an extended header. @throws AppError `invalid_request` */
export function parseRecords(body: Buffer): Map<string, Buffer> {
  const records = new Map<string, Buffer>()
  for (let at = 0; at < body.length; ) {
    const space = body.indexOf(' ', at)
    const length = Number(body.toString('latin1', at, space))
    const equals = body.indexOf('=', space)
    const end = at + length
    if (!(space > at && equals > space && equals < end && end <= body.length) || body[end - 1] !== 0x0a) throw damaged()
    records.set(body.toString('utf8', space + 1, equals), body.subarray(equals + 1, end - 1))
    at = end
  }
  return records
}

/** @throws AppError `invalid_request` for what is no size */
export function sizeOf(value: number): number {
  if (Number.isSafeInteger(value) && value >= 0) return value
  throw damaged()
}

/** The error for bytes that are no tar, or whose checksums and lengths contradict each other. */
export function damaged(): AppError {
  return new AppError('invalid_request', 'The archive from the capsule is damaged.')
}

function text(block: Buffer, at: number, length: number): Buffer {
  return Buffer.from(untilZero(block.subarray(at, at + length)))
}

/** The bytes of a field up to the zero that ends it, if there is one. */
export function untilZero(field: Buffer): Buffer {
  const end = field.indexOf(0)
  return end < 0 ? field : field.subarray(0, end)
}

/** Octal digits, or with the highest bit set a number in base 256 as GNU tar writes it. */
function number(block: Buffer, at: number, length: number): number {
  const field = block.subarray(at, at + length)
  const first = field[0] ?? 0
  if (first < 0x80)
    return Number.parseInt(
      field
        .toString('latin1')
        .replace(/[\0 ]+/g, ' ')
        .trim() || '0',
      8,
    )
  const negative = (first & 0x40) !== 0
  let value = BigInt(negative ? first - 0x100 : first & 0x3f)
  for (const byte of field.subarray(1)) value = value * 256n + BigInt(byte)
  return Number(value)
}
