import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Writable } from 'node:stream'
import { AppError } from '@wrenn/base'
import { type ArchiveEnd, endFrame, FRAMED_ARCHIVE_TYPE, frameHead } from '@wrenn/protocol'
import { EndWatch } from '../archive/archive-end.js'
import { Place } from '../archive/place.js'
import { Tar, type TarEnd } from '../archive/tar.js'
import type { Identity } from '../identity/identity.js'
import type { GuestUser } from '../identity/users.js'
import { clientPath } from '../process/environment.js'
import type { Tools } from '../system/tools.js'
import { sendJson } from './reply.js'

/**
 * `GET /archive`: a tar of one entry with everything below it, in frames. `POST /archive`: unpacks a tar into a directory. Both
 * with the rights of the user and no others.
 */
export async function handleArchive(
  request: IncomingMessage,
  response: ServerResponse,
  query: URLSearchParams,
  identity: Identity,
  tools: Tools,
): Promise<void> {
  const username = query.get('username') ?? ''
  const user = username === '' ? identity.userOf(request.headers) : identity.userNamed(username)
  const given = query.get('path') ?? ''
  const path = clientPath(given, user, identity.values.defaultCwd)
  if (request.method === 'GET') await sendArchive(response, path, /(?:^|\/)\.{0,2}$/.test(given), user, tools)
  else if (request.method === 'POST') await unpackArchive(request, response, path, user, tools)
  else throw new AppError('method_not_allowed', 'Use GET or POST on /archive.')
}

async function sendArchive(
  response: ServerResponse,
  path: string,
  follow: boolean,
  user: GuestUser,
  tools: Tools,
): Promise<void> {
  using place = Place.ofEntry(path, follow, user)
  using tar = Tar.create(user, tools, place.fd, place.name)
  response.once('close', () => tar[Symbol.dispose]())
  let begun = false
  for await (const chunk of tar.output) {
    if (!begun) response.writeHead(200, { 'content-type': FRAMED_ARCHIVE_TYPE })
    begun = true
    if (!sendFrame(response, chunk)) await writable(response)
  }
  const end = archiveEnd(path, await tar.ended())
  if (!begun) throw new AppError(end.error?.code ?? 'guest_error', end.error?.message ?? 'tar made no archive')
  response.end(endFrame(end))
}

function sendFrame(response: ServerResponse, chunk: Buffer): boolean {
  response.cork()
  response.write(frameHead(chunk.length))
  const hasRoom = response.write(chunk)
  response.uncork()
  return hasRoom
}

/** Resolves when more may be written, or when nobody reads any more. */
async function writable(sink: Writable): Promise<void> {
  if (sink.destroyed) return
  const abort = new AbortController()
  const { signal } = abort
  await Promise.race([once(sink, 'drain', { signal }), once(sink, 'close', { signal })]).finally(() => abort.abort())
}

function archiveEnd(path: string, { code, messages }: TarEnd): ArchiveEnd {
  if (code === 0) return { notes: messages.notes }
  const { code: name, message } = messages.failure(`The archive of ${path} is not complete`)
  return { notes: messages.notes, error: { code: name, message } }
}

async function unpackArchive(
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  user: GuestUser,
  tools: Tools,
): Promise<void> {
  using place = Place.ofDirectory(path, user)
  using tar = Tar.extract(user, tools, place.fd)
  const watch = new EndWatch()
  try {
    await feed(request, tar, watch)
    const { code, messages } = await tar.ended()
    if (code !== 0) throw messages.failure(`The archive was not unpacked completely into ${path}`)
    if (!watch.isComplete)
      throw new AppError('invalid_request', `The archive for ${path} has no end: it was cut short.`)
    sendJson(response, 200, { path, bytes: watch.bytes })
  } finally {
    // What the client still sends after a refusal is read and dropped, so that it gets to see the answer.
    request.unpipe()
    request.resume()
  }
}

/** How far tar may be behind: Node.js counts a pipe as full after 16 KiB, and each wait for tar is two switches of processes. */
const MAX_WAITING_BYTES = 2 ** 20

/** Gives tar the body. Returns when all of it was given or tar has ended. @throws AppError when the body breaks off */
async function feed(request: IncomingMessage, tar: Tar, watch: EndWatch): Promise<void> {
  const { input } = tar
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      watch.push(chunk)
      if (input.destroyed) return
      if (!input.write(chunk) && input.writableLength > MAX_WAITING_BYTES) await writable(input)
    }
  } catch (error) {
    throw new AppError('invalid_request', 'The upload ended early.', { cause: error })
  }
  input.end()
}
