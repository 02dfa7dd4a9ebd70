import { read, writevSync } from 'node:fs'
import { isErrno } from '@wrenn/base'
import {
  type AttributeChange,
  answerAttributes,
  answerHead,
  answerInit,
  answerOpen,
  answerStatfs,
  answerWrite,
  errno,
  type FileAttributes,
  opcode,
  parseFallocate,
  parseRange,
  parseRequest,
  parseSetattr,
  parseWrite,
  type Range,
  REQUEST_BYTES,
  type Request,
} from './fuse-wire.js'

/** Requests that are read at a time: each waits in a thread of its own. */
const READERS = 2
/** Buffers that are kept for later, of each. */
const MAX_FREE = 8

/** The one file of a mount. What fails is answered by EIO. */
export interface ServedFile {
  attributes(): Promise<FileAttributes>
  change(change: AttributeChange): Promise<void>
  read(range: Range): Promise<Buffer>
  write(offset: number, bytes: Buffer): Promise<void>
  /** What was there reads as zeros. */
  punch(range: Range): Promise<void>
  sync(): Promise<void>
}

const nothing = Buffer.alloc(0)

/**
 * Serves a file that is mounted where it is wanted: the kernel's requests come from /dev/fuse. It ends when the mount does.
 * @param device open /dev/fuse that was given to the mount
 */
export async function serveFile(device: number, file: ServedFile): Promise<void> {
  await Promise.all(Array.from({ length: READERS }, () => readRequests(device, file)))
}

async function readRequests(device: number, file: ServedFile): Promise<void> {
  /** What is to be written stays in its buffer until it is; then the next request may have it. */
  const free: Buffer[] = []
  for (;;) {
    const buffer = free.pop() ?? Buffer.allocUnsafeSlow(REQUEST_BYTES)
    const bytes = await readRequest(device, buffer)
    if (bytes === undefined) return
    void answer(device, file, parseRequest(bytes)).finally(() => {
      if (free.length < MAX_FREE) free.push(buffer)
    })
  }
}

/** @returns `undefined` when the mount is gone */
async function readRequest(device: number, buffer: Buffer): Promise<Buffer | undefined> {
  for (;;) {
    try {
      const length = await new Promise<number>((resolve, reject) => {
        read(device, buffer, 0, buffer.length, null, (error, count) => (error ? reject(error) : resolve(count)))
      })
      return buffer.subarray(0, length)
    } catch (error) {
      if (isErrno(error, 'ENODEV', 'ECONNABORTED')) return undefined
      // ENOENT: it was taken back before it was read.
      if (!isErrno(error, 'ENOENT', 'EINTR', 'EAGAIN')) throw error
    }
  }
}

async function answer(device: number, file: ServedFile, request: Request): Promise<void> {
  const { op, unique } = request
  if (op === opcode.forget || op === opcode.batchForget || op === opcode.interrupt) return
  const reply = (content: Buffer, error = 0): void => {
    try {
      writevSync(device, [answerHead(unique, content.length, error), content].slice(0, content.length > 0 ? 2 : 1))
    } catch (failure) {
      if (!isErrno(failure, 'ENOENT', 'ENODEV')) throw failure // nobody waits for it any more
    }
  }
  try {
    const content = await handle(file, request)
    if (typeof content === 'number') reply(nothing, content)
    else reply(content)
  } catch {
    reply(nothing, errno.EIO)
  }
}

/** @returns what is answered, or the number of an error */
async function handle(file: ServedFile, { op, body }: Request): Promise<Buffer | number> {
  switch (op) {
    case opcode.init:
      return answerInit(body) ?? errno.EINVAL
    case opcode.getattr:
      return answerAttributes(await file.attributes())
    case opcode.setattr:
      await file.change(parseSetattr(body))
      return answerAttributes(await file.attributes())
    case opcode.open:
      return answerOpen()
    case opcode.read:
      return await file.read(parseRange(body))
    case opcode.write: {
      const { offset, bytes } = parseWrite(body)
      await file.write(offset, bytes)
      return answerWrite(bytes.length)
    }
    case opcode.fallocate: {
      const { isPunch, ...range } = parseFallocate(body)
      if (!isPunch) return errno.EOPNOTSUPP
      await file.punch(range)
      return nothing
    }
    case opcode.statfs:
      return answerStatfs()
    case opcode.fsync:
      await file.sync()
      return nothing
    case opcode.flush:
    case opcode.release:
    case opcode.destroy:
      return nothing
    default:
      return errno.ENOSYS
  }
}
