import type { IncomingMessage, ServerResponse } from 'node:http'
import { basename } from 'node:path'
import type { Readable } from 'node:stream'
import { AppError, errorText, isErrno } from '@wrenn/base'
import type { Metadata, MetadataStore } from '../files/metadata.js'
import { Upload } from '../files/upload.js'
import type { GuestUser } from '../identity/users.js'
import { sendJson } from './reply.js'

const METADATA_PREFIX = 'x-metadata-'

export interface WriteContext {
  readonly user: GuestUser
  /** From the query; absent: the parts' file names are the paths. */
  readonly path: string | undefined
  readonly mode: number | undefined
  /** Makes a client's path absolute. */
  readonly resolve: (path: string) => string
  readonly store: MetadataStore
}

interface Received {
  readonly path: string
  readonly upload: Upload
}

/** `POST /files`: one file as the body itself, or any number as parts of a form. All of them appear, or none. */
export async function writeFiles(
  request: IncomingMessage,
  response: ServerResponse,
  context: WriteContext,
): Promise<void> {
  const received = new Map<string, Upload>()
  try {
    const body = await decoded(request)
    if (isMultipart(request)) await receiveForm(request, body, context, received)
    else await receiveBody(body, context, received)
    sendJson(response, 200, await commitAll(received, metadataOf(request), context.store))
  } catch (error) {
    for (const upload of received.values()) upload.discard()
    throw isErrno(error, 'ECONNRESET', 'ERR_STREAM_PREMATURE_CLOSE') ? incomplete(error) : error
  } finally {
    // What the client still sends after a refusal is read and dropped, so that it gets to see the answer.
    request.resume()
  }
}

function isMultipart(request: IncomingMessage): boolean {
  return /^multipart\/form-data\s*;/i.test(request.headers['content-type'] ?? '')
}

async function decoded(request: IncomingMessage): Promise<Readable> {
  const encoding = request.headers['content-encoding']?.trim().toLowerCase() ?? 'identity'
  if (encoding === 'identity' || encoding === '') return request
  if (encoding !== 'gzip')
    throw new AppError('unsupported_media_type', `Unknown content-encoding "${encoding}"; use gzip.`)
  const { createGunzip } = await import('node:zlib')
  const gunzip = createGunzip()
  request.once('error', (error) => gunzip.destroy(error))
  request.once('aborted', () => gunzip.destroy(incomplete(undefined)))
  return request.pipe(gunzip)
}

async function receiveBody(body: Readable, context: WriteContext, received: Map<string, Upload>): Promise<void> {
  if (context.path === undefined) throw new AppError('invalid_request', 'The query parameter path is required.')
  const { upload } = open(context.path, context, received)
  try {
    await upload.receive(body)
  } catch (error) {
    throw isErrno(error, 'Z_DATA_ERROR', 'Z_BUF_ERROR') ? badEncoding(error) : error
  }
}

async function receiveForm(
  request: IncomingMessage,
  body: Readable,
  context: WriteContext,
  received: Map<string, Upload>,
): Promise<void> {
  const { Busboy } = await import('@fastify/busboy')
  const contentType = request.headers['content-type'] ?? ''
  const parts: Promise<void>[] = []
  await new Promise<void>((resolve, reject) => {
    const form = new Busboy({
      headers: { 'content-type': contentType },
      preservePath: true,
      // A signed upload may send the file as a plain field without a file name.
      isPartAFile: (name) => name === 'file',
    })
    form.on('file', (_field, stream, filename) => {
      const part = receivePart(stream, filename, context, received)
      part.catch((error: unknown) => {
        stream.resume()
        reject(error)
      })
      parts.push(part)
    })
    form.once('finish', () => resolve())
    form.once('error', (error) =>
      reject(new AppError('invalid_request', `The form cannot be read: ${errorText(error)}.`)),
    )
    body.once('error', (error) => reject(isErrno(error, 'Z_DATA_ERROR', 'Z_BUF_ERROR') ? badEncoding(error) : error))
    body.once('aborted', () => reject(incomplete(undefined)))
    body.pipe(form)
  })
  await Promise.all(parts)
  if (parts.length === 0) throw new AppError('invalid_request', 'The form has no part named "file".')
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
  const upload = Upload.open({ path: absolute, user: context.user, mode: context.mode })
  received.set(absolute, upload)
  return { path: absolute, upload }
}

async function commitAll(
  received: ReadonlyMap<string, Upload>,
  metadata: Metadata,
  store: MetadataStore,
): Promise<unknown> {
  const answer: unknown[] = []
  for (const [path, upload] of received) {
    await upload.commit(metadata, store)
    const shown = Object.keys(metadata).length === 0 ? {} : { metadata }
    answer.push({ path, name: basename(path), type: 'file', ...shown })
  }
  return answer
}

function metadataOf(request: IncomingMessage): Metadata {
  const metadata: Record<string, string> = {}
  for (const [name, value] of Object.entries(request.headers)) {
    if (name.startsWith(METADATA_PREFIX)) metadata[name.slice(METADATA_PREFIX.length)] = String(value)
  }
  return metadata
}

function badEncoding(cause: unknown): AppError {
  return new AppError('invalid_request', 'The body is not valid gzip.', { cause })
}

function incomplete(cause: unknown): AppError {
  return new AppError('invalid_request', 'The upload ended early.', { cause })
}
