import type { Readable } from 'node:stream'
import { AppError, isErrno } from './errors.js'

/** The codings that uploads may have, as an `Accept-Encoding` header says it (RFC 9110 §12.5.3). */
export const ACCEPTED_CODINGS = 'gzip, identity'

/**
 * How the body of an upload is packed, by its `Content-Encoding`: at most once, with gzip.
 * @throws AppError `unsupported_media_type`
 */
export function contentCoding(header: string | undefined): 'identity' | 'gzip' {
  const names = (header ?? '').split(',').map((name) => name.trim().toLowerCase())
  const codings = names.filter((name) => name !== '' && name !== 'identity')
  if (codings.length === 0) return 'identity'
  if (codings.length === 1 && (codings[0] === 'gzip' || codings[0] === 'x-gzip')) return 'gzip'
  throw new AppError(
    'unsupported_media_type',
    `Content-Encoding "${header}" is not supported: pack the body once with gzip, or send it as it is.`,
  )
}

/**
 * What comes out of a packed stream. When `source` fails or ends early so does the result; when the result is destroyed,
 * `source` stays, for the caller to read off.
 */
export async function unpacked(source: Readable, coding: 'identity' | 'gzip'): Promise<Readable> {
  if (coding === 'identity') return source
  // A megabyte that most processes never need.
  const { createGunzip } = await import('node:zlib')
  const gunzip = createGunzip()
  // Whoever reads learns of an error, however late; until then it must not be one that nobody listens to.
  gunzip.on('error', () => {})
  source.once('error', (error) => gunzip.destroy(error))
  source.once('close', () => {
    if (!source.readableEnded) gunzip.destroy(premature())
  })
  return source.pipe(gunzip)
}

/** What an error of an unpacked stream means to its sender; anything else comes back as it is. */
export function codingError(thrown: unknown): unknown {
  if (!isErrno(thrown, 'Z_DATA_ERROR', 'Z_BUF_ERROR', 'Z_NEED_DICT')) return thrown
  return new AppError('invalid_request', 'The body is not valid gzip.', { cause: thrown })
}

function premature(): Error {
  return Object.assign(new Error('The source ended early'), { code: 'ERR_STREAM_PREMATURE_CLOSE' })
}
