import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Writable } from 'node:stream'
import { AppError } from '@wrenn/base'
import { copyPart, copyRest } from '../files/descriptor-io.js'
import { onPath } from '../files/file-error.js'
import type { FileVersions, Reading } from '../files/file-versions.js'
import { kernelPath } from '../files/kernel-path.js'
import { inspect, type ReadableFile, type Validators } from '../files/readable-file.js'
import type { Caller } from '../identity/identity.js'
import type { GuestUser } from '../identity/users.js'
import { asUser } from '../system/as-user.js'
import { withRightsFor } from '../system/rights.js'
import { evaluateConditions, rangeApplies } from './conditions.js'
import { parseRange, prefersGzip } from './range.js'

/** Which file is read, and with whose rights. */
export interface ReadContext {
  /** Absolute. */
  readonly path: string
  readonly caller: Caller
  readonly user: GuestUser
  readonly versions: FileVersions
}

/** `GET` and `HEAD /files`: a file's bytes, streamed. */
export async function readFile(
  request: IncomingMessage,
  response: ServerResponse,
  { path, caller, user, versions }: ReadContext,
): Promise<void> {
  let isAnswered = false
  while (!isAnswered) {
    // Non-blocking, so that a FIFO without a writer is refused below instead of hanging the agent.
    const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY
    const open = (rights: GuestUser): number =>
      onPath(path, () => asUser(rights, () => openSync(kernelPath(path), flags)))
    const fd = withRightsFor(caller, user, open)
    try {
      requireFile(fd, path)
      const reading = await versions.read(fd)
      try {
        const file = await inspect(fd, path)
        // Replaced while its first bytes were read: nothing was said yet, so the new content is read.
        isAnswered = !reading.isStale
        if (isAnswered) await answer(request, response, { fd, reading, ...file })
      } finally {
        reading.end()
      }
    } finally {
      closeSync(fd)
    }
  }
}

function requireFile(fd: number, path: string): void {
  const stats = fstatSync(fd)
  if (stats.isDirectory()) throw new AppError('is_a_directory', `path '${path}' is a directory`)
  if (!stats.isFile()) throw new AppError('invalid_request', `path '${path}' is not a regular file`)
}

interface OpenFile extends ReadableFile {
  readonly fd: number
  readonly reading: Reading
}

/** The bytes [start, end) of the file; no `end` where only reading will tell. */
interface Part {
  readonly start: number
  readonly end: number | undefined
}

async function answer(request: IncomingMessage, response: ServerResponse, file: OpenFile): Promise<void> {
  setCommonHeaders(response, file)
  if (evaluateConditions(request.headers, file.validators) === 'not_modified') {
    response.writeHead(304).end()
    return
  }
  const part = partFor(request, response, file)
  const isGzip = part === undefined && file.sizeBytes !== 0 && prefersGzip(request.headers['accept-encoding'])
  const whole = { start: 0, end: file.sizeBytes }
  if (isGzip) await sendCompressed(request, response, file, whole)
  else await sendPlain(request, response, file, part ?? whole)
}

function setCommonHeaders(response: ServerResponse, { sizeBytes, validators }: ReadableFile): void {
  const { modifiedMs } = validators
  const etag = tellableTag(validators)
  response.setHeader('content-type', 'application/octet-stream')
  response.setHeader('accept-ranges', sizeBytes === undefined ? 'none' : 'bytes')
  if (modifiedMs !== undefined) response.setHeader('last-modified', new Date(modifiedMs).toUTCString())
  if (etag !== undefined) response.setHeader('etag', etag)
  response.setHeader('vary', 'Accept-Encoding')
}

/** The tag, once only the content that it stands for can have it. */
function tellableTag({ etag, isFresh }: Validators): string | undefined {
  return isFresh ? undefined : etag
}

/** The part that a `GET` asks for; `undefined` for the whole file, also where a range has no meaning: its length is not known. */
function partFor(request: IncomingMessage, response: ServerResponse, file: ReadableFile): Part | undefined {
  const { sizeBytes, validators } = file
  if (request.method !== 'GET' || sizeBytes === undefined) return undefined
  if (!rangeApplies(headerText(request.headers['if-range']), validators, Date.now())) return undefined
  try {
    const range = parseRange(request.headers.range, sizeBytes)
    if (range === undefined) return undefined
    response.setHeader('content-range', `bytes ${range.start}-${range.end}/${sizeBytes}`)
    response.statusCode = 206
    return { start: range.start, end: range.end + 1 }
  } catch (error) {
    response.setHeader('content-range', `bytes */${sizeBytes}`)
    throw error
  }
}

async function sendPlain(
  request: IncomingMessage,
  response: ServerResponse,
  file: OpenFile,
  part: Part,
): Promise<void> {
  if (part.end !== undefined) response.setHeader('content-length', part.end - part.start)
  response.writeHead(response.statusCode)
  if (request.method === 'HEAD' || (await copyTo(response, file, part))) response.end()
  // The file is no longer what was promised: a cut connection is the only sign left.
  else response.destroy()
}

async function sendCompressed(
  request: IncomingMessage,
  response: ServerResponse,
  file: OpenFile,
  whole: Part,
): Promise<void> {
  const etag = tellableTag(file.validators)
  if (etag !== undefined) response.setHeader('etag', `W/${etag}`)
  response.setHeader('content-encoding', 'gzip')
  response.writeHead(200)
  if (request.method === 'HEAD') {
    response.end()
    return
  }
  const { createGzip, constants: zlib } = await import('node:zlib')
  const gzip = createGzip({ level: zlib.Z_BEST_SPEED })
  response.once('close', () => gzip.destroy())
  gzip.pipe(response)
  if (await copyTo(gzip, file, whole)) gzip.end()
  else response.destroy()
}

/** What was read at first, then the rest. @returns false when the file turned out not to be what it was */
async function copyTo(sink: Writable, { fd, head, reading }: OpenFile, { start, end }: Part): Promise<boolean> {
  const options = { isStale: () => reading.isStale }
  const known = head.subarray(start, end)
  if (known.length > 0) sink.write(known)
  if (end === undefined) return await copyRest(fd, sink, options)
  const from = start + known.length
  return from >= end || (await copyPart(fd, { start: from, end }, sink, options))
}

function headerText(value: string | readonly string[] | undefined): string | undefined {
  return typeof value === 'string' ? value : value?.join(',')
}
