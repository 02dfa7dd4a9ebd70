import type { IncomingMessage, ServerResponse } from 'node:http'
import { basename } from 'node:path'
import type { Readable } from 'node:stream'
import type { Busboy } from '@fastify/busboy'
import { ACCEPTED_CODINGS, AppError, codingError, contentCoding, errorText, isErrno, unpacked } from '@wrenn/base'
import type { Metadata } from '../files/metadata.js'
import { currentValidators } from '../files/readable-file.js'
import { type Judge, Upload, type UploadSite } from '../files/upload.js'
import type { Caller } from '../identity/identity.js'
import type { GuestUser } from '../identity/users.js'
import { withRightsFor } from '../system/rights.js'
import { requireConditions, writeConditions } from './conditions.js'
import { sendJson } from './reply.js'

const METADATA_PREFIX = 'x-metadata-'

/** Where the files of one request go, and with whose rights. */
export interface WriteContext {
  readonly caller: Caller
  readonly user: GuestUser
  /** From the query; absent: the parts' file names are the paths. */
  readonly path: string | undefined
  /** Permission bits; absent: those of the file that is replaced, else 0644. */
  readonly mode: number | undefined
  readonly judge: Judge | undefined
  /** Makes a client's path absolute. */
  readonly resolve: (path: string) => string
  readonly site: UploadSite
}

interface Received {
  readonly path: string
  readonly upload: Upload
}

/**
 * `POST /files`: one file as the body itself, or any number as parts of a form. None of them appears before all have come; when one
 * cannot take its place then, the error says which have. `PUT /files` is the same with conditions, which agents before this one would
 * not look at.
 */
export async function writeFiles(
  request: IncomingMessage,
  response: ServerResponse,
  asked: Omit<WriteContext, 'judge'>,
): Promise<void> {
  const received = new Map<string, Upload>()
  let body: Readable = request
  try {
    const context = { ...asked, judge: judgeOf(request, asked.path) }
    body = await unpacked(request, contentCoding(request.headers['content-encoding']))
    if (isMultipart(request)) await receiveForm(request, body, context, received)
    else await receiveBody(body, context, received)
    sendJson(response, 200, await commitAll(received, metadataOf(request)))
  } catch (error) {
    for (const upload of received.values()) upload.discard()
    if (AppError.is(error, 'unsupported_media_type')) response.setHeader('accept-encoding', ACCEPTED_CODINGS)
    throw isErrno(error, 'ECONNRESET', 'ERR_STREAM_PREMATURE_CLOSE') ? incomplete(error) : error
  } finally {
    // What the client still sends after a refusal is read and dropped, so that it gets to see the answer.
    request.unpipe()
    request.resume()
    if (body !== request) body.destroy()
  }
}

/** @throws AppError `invalid_request` for conditions on more than one file */
function judgeOf({ headers }: IncomingMessage, path: string | undefined): Judge | undefined {
  const conditions = writeConditions(headers)
  if (conditions === undefined) return undefined
  if (path === undefined)
    throw new AppError('invalid_request', 'Conditions are about one file: give its path in the query.')
  return (fd) => requireConditions(conditions, fd === undefined ? undefined : currentValidators(fd))
}

function isMultipart(request: IncomingMessage): boolean {
  return /^multipart\/form-data\b/i.test(request.headers['content-type'] ?? '')
}

async function receiveBody(body: Readable, context: WriteContext, received: Map<string, Upload>): Promise<void> {
  if (context.path === undefined) throw new AppError('invalid_request', 'The query parameter path is required.')
  const { upload } = open(context.path, context, received)
  try {
    await upload.receive(body)
  } catch (error) {
    throw codingError(error)
  }
}

interface Part {
  readonly stream: Readable
  readonly done: Promise<void>
}

async function receiveForm(
  request: IncomingMessage,
  body: Readable,
  context: WriteContext,
  received: Map<string, Upload>,
): Promise<void> {
  const parts: Part[] = []
  try {
    await readForm(request.headers['content-type'] ?? '', body, (stream, filename) => {
      const done = receivePart(stream, filename, context, received)
      parts.push({ stream, done })
      return done
    })
    await Promise.all(parts.map(({ done }) => done))
  } catch (error) {
    // Only when nothing is being written any more may the files be closed.
    for (const { stream } of parts) stream.destroy()
    await Promise.allSettled(parts.map(({ done }) => done))
    throw error
  }
  if (parts.length === 0) throw new AppError('invalid_request', 'The form has no part named "file".')
}

type PartReceiver = (stream: Readable, filename: string | undefined) => Promise<void>

/** Resolves when the form has been read; the parts may still be on their way to disk. */
async function readForm(contentType: string, body: Readable, onPart: PartReceiver): Promise<void> {
  const { Busboy } = await import('@fastify/busboy')
  await new Promise<void>((resolve, reject) => {
    const unreadable = (error: unknown): void =>
      reject(new AppError('invalid_request', `The form cannot be read: ${errorText(error)}.`))
    const form = newForm(Busboy, contentType)
    form.on('file', (_field, stream, filename, transferEncoding) => {
      // A form that breaks off inside a part nobody reads any more must not end the agent.
      stream.on('error', unreadable)
      receivePlain(transferEncoding, () => onPart(stream, filename)).catch((error: unknown) => {
        stream.resume()
        reject(error)
      })
    })
    form.once('finish', () => resolve())
    form.on('error', unreadable)
    body.on('error', (error) => reject(codingError(error)))
    body.once('aborted', () => reject(incomplete(undefined)))
    body.pipe(form)
  })
}

/** Nobody packs the parts of a form any more (RFC 7578 §4.7); one that says it is packed is not stored packed. */
async function receivePlain(transferEncoding: string, receive: () => Promise<void>): Promise<void> {
  if (/^(?:7bit|8bit|binary)$/i.test(transferEncoding)) return await receive()
  const message = `A part with Content-Transfer-Encoding "${transferEncoding}" is not supported: send its bytes as they are.`
  throw new AppError('unsupported_media_type', message)
}

/** @throws AppError `invalid_request` when the content type has no boundary */
function newForm(Form: typeof Busboy, contentType: string): Busboy {
  try {
    return new Form({
      headers: { 'content-type': contentType },
      preservePath: true,
      // A signed upload may send the file as a plain field without a file name.
      isPartAFile: (name) => name === 'file',
    })
  } catch (error) {
    throw new AppError('invalid_request', `The form cannot be read: ${errorText(error)}.`)
  }
}

async function receivePart(
  stream: Readable,
  filename: string | undefined,
  context: WriteContext,
  received: Map<string, Upload>,
): Promise<void> {
  const path = context.path ?? filename
  if (!path) throw new AppError('invalid_request', 'Each part needs a file name, or the query a path.')
  await open(path, context, received).upload.receive(stream)
}

function open(path: string, context: WriteContext, received: Map<string, Upload>): Received {
  const absolute = context.resolve(path)
  if (received.has(absolute)) {
    throw new AppError(
      'invalid_request',
      `you cannot upload multiple files to the same path '${absolute}' in one upload request`,
    )
  }
  const { caller, user: owner, mode, judge, site } = context
  const upload = withRightsFor(caller, owner, (user) => Upload.open({ path: absolute, user, owner, mode, judge }, site))
  received.set(absolute, upload)
  return { path: absolute, upload }
}

async function commitAll(received: ReadonlyMap<string, Upload>, metadata: Metadata): Promise<unknown> {
  const answer: unknown[] = []
  for (const [path, upload] of received) {
    try {
      await upload.commit(metadata)
    } catch (error) {
      throw answer.length === 0 ? error : partlyWritten(error, [...received.keys()].slice(0, answer.length))
    }
    const shown = Object.keys(metadata).length === 0 ? {} : { metadata }
    answer.push({ path, name: basename(path), type: 'file', ...shown })
  }
  return answer
}

/** Not more names than a person reads. */
const MAX_NAMED = 20

/** What is written stays, for it may have replaced something; whoever sent the form learns what that is. */
function partlyWritten(thrown: unknown, written: readonly string[]): AppError {
  const { code, message, cause } = AppError.from(thrown)
  const names = written.slice(0, MAX_NAMED).map((path) => `'${path}'`)
  const more = written.length > MAX_NAMED ? ` and ${written.length - MAX_NAMED} more` : ''
  return new AppError(code, `${message}; written before it: ${names.join(', ')}${more}`, { cause })
}

function metadataOf(request: IncomingMessage): Metadata {
  const metadata: Record<string, string> = {}
  for (const [name, value] of Object.entries(request.headers)) {
    if (name.startsWith(METADATA_PREFIX)) metadata[name.slice(METADATA_PREFIX.length)] = String(value)
  }
  return metadata
}

function incomplete(cause: unknown): AppError {
  return new AppError('invalid_request', 'The upload ended early.', { cause })
}
