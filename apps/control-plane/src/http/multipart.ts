import { Readable } from 'node:stream'
import type { Multipart } from '@fastify/multipart'
import { AppError, contentCoding, errorText, isErrno } from '@wrenn/base'
import { pathRequestSchema } from '@wrenn/protocol'
import type { FastifyRequest } from 'fastify'

const MAX_FIELD_BYTES = 8 * 1024

interface Destination {
  readonly path: string
  readonly user?: string | undefined
}

/**
 * Reads a form with the fields `path` and `user` and then one `file`, whose bytes go straight to `store`. Fields may come in
 * the query instead. The bytes end only when the whole form is there and is a good one, so that nothing is stored of another.
 * @throws AppError `invalid_request`, `unsupported_media_type`
 */
export async function readUpload(
  request: FastifyRequest,
  query: { readonly [Key in keyof Destination]?: string | undefined },
  store: (destination: Destination, body: Readable) => Promise<void>,
): Promise<void> {
  if (!request.isMultipart()) {
    throw new AppError('unsupported_media_type', 'The body must be multipart/form-data with `path` and `file`.')
  }
  requirePlain(request)
  const fields: Record<string, unknown> = { ...query }
  const limits = { fieldSize: MAX_FIELD_BYTES, fields: 8, files: 1, parts: 9, fileSize: Number.POSITIVE_INFINITY }
  let storing = false
  try {
    const parts = request.parts({ limits })[Symbol.asyncIterator]()
    for (let next = await parts.next(); !next.done; next = await parts.next()) {
      const part = next.value
      if (part.type === 'field') {
        fields[part.fieldname] = part.value
        continue
      }
      requirePlainPart(part.encoding)
      const destination = destinationOf(fields)
      storing = true
      return await store(destination, Readable.from(untilFormEnds(part.file, parts), { objectMode: false }))
    }
  } catch (error) {
    // Let the rest of the body run off, so that the client gets to read the answer.
    request.raw.unpipe()
    request.raw.resume()
    throw storing || AppError.is(error) ? error : unreadable(error)
  }
  throw new AppError('invalid_request', 'The form has no `file` part.')
}

/** The bytes of the file. @throws AppError `invalid_request` when what follows them is not the end of a good form */
async function* untilFormEnds(file: Readable, parts: AsyncIterator<Multipart>): AsyncGenerator<Uint8Array> {
  yield* file
  try {
    for (let next = await parts.next(); !next.done; next = await parts.next())
      if (next.value.type === 'file') throw severalFiles()
  } catch (error) {
    if (isErrno(error, 'FST_FILES_LIMIT')) throw severalFiles()
    throw AppError.is(error) ? error : unreadable(error)
  }
}

function severalFiles(): AppError {
  return new AppError(
    'invalid_request',
    'A form carries one file: send the others in forms of their own. Nothing was written.',
  )
}

/** The parser reads the form from the request itself, so one that is packed cannot be unpacked on the way. */
function requirePlain(request: FastifyRequest): void {
  if (contentCoding(request.headers['content-encoding']) === 'identity') return
  throw new AppError('unsupported_media_type', 'A form cannot be packed: PUT the file, or send the form as it is.')
}

/** Nobody packs the parts of a form any more (RFC 7578 §4.7); one that says it is packed is not stored packed. */
function requirePlainPart(encoding: string): void {
  if (/^(?:7bit|8bit|binary)$/i.test(encoding)) return
  const message = `A part with Content-Transfer-Encoding "${encoding}" is not supported: send its bytes as they are.`
  throw new AppError('unsupported_media_type', message)
}

/** Whatever the parser does not like about a form is the sender's. */
function unreadable(error: unknown): AppError {
  return new AppError('invalid_request', `The form cannot be read: ${errorText(error)}`, { cause: error })
}

function destinationOf(fields: Readonly<Record<string, unknown>>): Destination {
  if (fields.path === undefined) {
    throw new AppError('invalid_request', 'Send the `path` field before the `file` part, or as a query parameter.')
  }
  // Forms may carry fields of their makers' own.
  const parsed = pathRequestSchema.strip().safeParse(fields)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw new AppError('invalid_request', `${issue?.path.join('.') ?? 'form'}: ${issue?.message ?? 'is not valid'}`)
}
