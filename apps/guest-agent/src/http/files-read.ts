import { closeSync, constants, fstatSync, openSync, type Stats } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { AppError } from '@wrenn/base'
import { copyFromFile } from '../files/descriptor-io.js'
import { onPath } from '../files/file-error.js'
import { kernelPath } from '../files/kernel-path.js'
import type { GuestUser } from '../identity/users.js'
import { asUser } from '../system/as-user.js'
import { type ByteRange, parseRange, prefersGzip } from './range.js'

/** `GET` and `HEAD /files`: a file's bytes, streamed. */
export async function readFile(
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  user: GuestUser,
): Promise<void> {
  // Non-blocking, so that a FIFO without a writer is refused below instead of hanging the agent.
  const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY
  const fd = onPath(path, () => asUser(user, () => openSync(kernelPath(path), flags)))
  try {
    await answer(request, response, fd, path)
  } finally {
    closeSync(fd)
  }
}

async function answer(request: IncomingMessage, response: ServerResponse, fd: number, path: string): Promise<void> {
  const stats = fstatSync(fd)
  if (stats.isDirectory()) throw new AppError('is_a_directory', `path '${path}' is a directory`)
  if (!stats.isFile()) throw new AppError('invalid_request', `path '${path}' is not a regular file`)
  const tag = `"${stats.ino.toString(36)}-${stats.size.toString(36)}-${Math.round(stats.mtimeMs * 1000).toString(36)}"`
  setCommonHeaders(response, stats, tag)
  if (request.headers['if-none-match']?.includes(tag)) {
    response.writeHead(304).end()
    return
  }
  const range = rangeFor(request, response, stats, tag)
  if (range === undefined && stats.size > 0 && prefersGzip(headerText(request.headers['accept-encoding']))) {
    await sendCompressed(request, response, fd, tag)
  } else {
    await sendPlain(request, response, fd, stats, range)
  }
}

function setCommonHeaders(response: ServerResponse, stats: Stats, tag: string): void {
  response.setHeader('content-type', 'application/octet-stream')
  response.setHeader('accept-ranges', 'bytes')
  response.setHeader('last-modified', stats.mtime.toUTCString())
  response.setHeader('etag', tag)
  response.setHeader('vary', 'Accept-Encoding')
}

function rangeFor(
  request: IncomingMessage,
  response: ServerResponse,
  stats: Stats,
  tag: string,
): ByteRange | undefined {
  const condition = request.headers['if-range']
  if (condition !== undefined && condition !== tag && condition !== stats.mtime.toUTCString()) return undefined
  try {
    return parseRange(request.headers.range, stats.size)
  } catch (error) {
    response.setHeader('content-range', `bytes */${stats.size}`)
    throw error
  }
}

async function sendPlain(
  request: IncomingMessage,
  response: ServerResponse,
  fd: number,
  stats: Stats,
  range: ByteRange | undefined,
): Promise<void> {
  const { start, end } = range ?? { start: 0, end: stats.size - 1 }
  if (range !== undefined) response.setHeader('content-range', `bytes ${start}-${end}/${stats.size}`)
  // Files of /proc say size 0 and still have content, so an "empty" file is read to its end.
  if (stats.size > 0) response.setHeader('content-length', end - start + 1)
  response.writeHead(range === undefined ? 200 : 206)
  if (request.method === 'HEAD') response.end()
  else if (await copyFromFile(fd, stats.size > 0 ? { start, end } : { start: 0 }, response)) response.end()
  // The file has become shorter: a cut connection is the only sign left.
  else response.destroy()
}

async function sendCompressed(
  request: IncomingMessage,
  response: ServerResponse,
  fd: number,
  tag: string,
): Promise<void> {
  response.setHeader('etag', `W/${tag}`)
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
  await copyFromFile(fd, { start: 0 }, gzip)
  gzip.end()
}

function headerText(value: string | readonly string[] | undefined): string | undefined {
  return typeof value === 'string' ? value : value?.join(',')
}
