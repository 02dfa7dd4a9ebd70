/** The kernel's side of /dev/fuse, as of linux/fuse.h: protocol 7, of which any minor version since 28 will do. */
export const fuse = { major: 7, minor: 31 } as const

/** What the kernel asks for, as far as a file needs it. */
export const opcode = {
  lookup: 1,
  forget: 2,
  getattr: 3,
  setattr: 4,
  open: 14,
  read: 15,
  write: 16,
  statfs: 17,
  release: 18,
  fsync: 20,
  flush: 25,
  init: 26,
  interrupt: 36,
  destroy: 38,
  batchForget: 42,
  fallocate: 43,
} as const

/** Error numbers that answers carry, negated. */
export const errno = { EIO: 5, EINVAL: 22, ENOSYS: 38, EOPNOTSUPP: 95 } as const

const IN_HEADER = 40
const OUT_HEADER = 16
const ATTR_BYTES = 88
/** FUSE_ASYNC_READ, FUSE_BIG_WRITES, FUSE_MAX_PAGES. */
const FLAGS = (1 << 0) | (1 << 5) | (1 << 22)
/** What the kernel has read stays in its cache when the file is opened once more. */
const KEEP_CACHE = 1 << 1
/** Nothing but this file system changes them. */
const ATTR_VALID_SEC = 3600n
/** Of one read or write. */
export const MAX_TRANSFER_BYTES = 2 ** 20
const PAGE_BYTES = 4096
const MAX_BACKGROUND = 64
const CONGESTION = 48
/** FUSE_ROOT_ID: the one file. */
const ROOT = 1n

/** A request, with its own part of what was read. */
export interface Request {
  readonly op: number
  readonly unique: bigint
  readonly body: Buffer
}

/** Room for the largest request. */
export const REQUEST_BYTES = MAX_TRANSFER_BYTES + PAGE_BYTES

/** Cuts what one read of the device gave. */
export function parseRequest(bytes: Buffer): Request {
  return { op: bytes.readUInt32LE(4), unique: bytes.readBigUInt64LE(8), body: bytes.subarray(IN_HEADER) }
}

/** The head of an answer; `bytes` of its content follow. */
export function answerHead(unique: bigint, bytes: number, error = 0): Buffer {
  const head = Buffer.alloc(OUT_HEADER)
  head.writeUInt32LE(OUT_HEADER + bytes, 0)
  head.writeInt32LE(-error, 4)
  head.writeBigUInt64LE(unique, 8)
  return head
}

/** @returns `undefined` for a kernel that is too old */
export function answerInit(body: Buffer): Buffer | undefined {
  const [major, minor, readahead, offered] = [0, 4, 8, 12].map((at) => body.readUInt32LE(at))
  if (major !== fuse.major || minor === undefined || minor < 28) return undefined
  const answer = Buffer.alloc(64)
  answer.writeUInt32LE(fuse.major, 0)
  answer.writeUInt32LE(fuse.minor, 4)
  answer.writeUInt32LE(readahead ?? 0, 8)
  answer.writeUInt32LE((FLAGS & (offered ?? 0)) >>> 0, 12)
  answer.writeUInt16LE(MAX_BACKGROUND, 16)
  answer.writeUInt16LE(CONGESTION, 18)
  answer.writeUInt32LE(MAX_TRANSFER_BYTES, 20)
  answer.writeUInt32LE(1, 24) // times are exact to the nanosecond
  answer.writeUInt16LE(MAX_TRANSFER_BYTES / PAGE_BYTES, 28)
  return answer
}

/** What is told of the file. */
export interface FileAttributes {
  readonly sizeBytes: number
  /** Of 512 bytes each. */
  readonly blocks: number
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtimeMs: number
}

export function answerAttributes(file: FileAttributes): Buffer {
  const answer = Buffer.alloc(16 + ATTR_BYTES)
  answer.writeBigUInt64LE(ATTR_VALID_SEC, 0)
  const attr = answer.subarray(16)
  attr.writeBigUInt64LE(ROOT, 0)
  attr.writeBigUInt64LE(BigInt(file.sizeBytes), 8)
  attr.writeBigUInt64LE(BigInt(file.blocks), 16)
  const seconds = BigInt(Math.floor(file.mtimeMs / 1000))
  for (const at of [24, 32, 40]) attr.writeBigUInt64LE(seconds, at)
  attr.writeUInt32LE(file.mode, 60)
  attr.writeUInt32LE(1, 64)
  attr.writeUInt32LE(file.uid, 68)
  attr.writeUInt32LE(file.gid, 72)
  attr.writeUInt32LE(PAGE_BYTES, 80)
  return answer
}

export function answerOpen(): Buffer {
  const answer = Buffer.alloc(16)
  answer.writeUInt32LE(KEEP_CACHE, 8)
  return answer
}

export function answerWrite(bytes: number): Buffer {
  const answer = Buffer.alloc(8)
  answer.writeUInt32LE(bytes, 0)
  return answer
}

/** An empty file system: nobody asks for its room. */
export function answerStatfs(): Buffer {
  const answer = Buffer.alloc(80)
  answer.writeUInt32LE(PAGE_BYTES, 40)
  answer.writeUInt32LE(255, 44)
  return answer
}

/** A stretch of the file. */
export interface Range {
  readonly offset: number
  readonly length: number
}

export function parseRange(body: Buffer): Range {
  return { offset: Number(body.readBigUInt64LE(8)), length: body.readUInt32LE(16) }
}

/** What is written follows the head. */
export function parseWrite(body: Buffer): Range & { readonly bytes: Buffer } {
  const range = parseRange(body)
  return { ...range, bytes: body.subarray(40, 40 + range.length) }
}

/** `isPunch`: FALLOC_FL_PUNCH_HOLE with FALLOC_FL_KEEP_SIZE, the one mode that guests' memory is changed by. */
export function parseFallocate(body: Buffer): Range & { readonly isPunch: boolean } {
  const [offset, length] = [body.readBigUInt64LE(8), body.readBigUInt64LE(16)]
  return { offset: Number(offset), length: Number(length), isPunch: body.readUInt32LE(24) === 3 }
}

/** What is to be set; what is absent stays. Sizes and times never change. */
export interface AttributeChange {
  readonly mode: number | undefined
  readonly uid: number | undefined
  readonly gid: number | undefined
  readonly sizeBytes: number | undefined
}

export function parseSetattr(body: Buffer): AttributeChange {
  const valid = body.readUInt32LE(0)
  const has = (bit: number): boolean => (valid & (1 << bit)) !== 0
  return {
    mode: has(0) ? body.readUInt32LE(68) : undefined,
    uid: has(1) ? body.readUInt32LE(76) : undefined,
    gid: has(2) ? body.readUInt32LE(80) : undefined,
    sizeBytes: has(3) ? Number(body.readBigUInt64LE(16)) : undefined,
  }
}
