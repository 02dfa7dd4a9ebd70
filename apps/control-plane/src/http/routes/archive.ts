import { Readable } from 'node:stream'
import { AppError } from '@wrenn/base'
import {
  ARCHIVE_TYPE,
  archiveQuerySchema,
  endFrame,
  FRAMED_ARCHIVE_TYPE,
  frameHead,
  uploadResultSchema,
} from '@wrenn/protocol'
import type { FastifyRequest } from 'fastify'
import { type OpenedArchive, openArchive, writeArchive } from '../../domain/commands/index.js'
import { bodyOfCall } from '../body-of-call.js'
import type { App, Services } from '../context.js'
import { bytes, capsuleParams, errors } from '../schemas.js'
import { countSent, targetOf } from './files.js'

const CHUNK_BYTES = 256 * 1024

const readText = `Download a file or directory as a tar, with modes, times and links. Entries begin with the last part of the path.
A connection that is cut says that the tar is not complete; who accepts ${FRAMED_ARCHIVE_TYPE} is told why in its last frame.`
const writeText = `Unpack a tar into a directory, which is made when it is not there. Modes, times and links are kept; all of it
belongs to the user. After an error some of it may have been unpacked.`

/** A directory at once, as a tar. */
export function archiveRoutes(app: App, services: Services): void {
  const target = targetOf(services)
  app.get(
    '/v1/capsules/:id/files/archive',
    {
      exposeHeadRoute: false,
      config: { permission: 'capsules.use', records: 'capsule.read_archive' },
      schema: {
        tags: ['files'],
        summary: 'Download a file or directory as a tar.',
        description: readText,
        produces: [ARCHIVE_TYPE, FRAMED_ARCHIVE_TYPE],
        params: capsuleParams,
        querystring: archiveQuerySchema,
        response: { 200: bytes, ...errors },
      },
    },
    async (request, reply) => {
      const archive = await openArchive(await target(request, request.params.id, request.query))
      const framed = wantsFrames(request)
      const chunks = framed ? frames(archive) : plain(archive)
      const body = bodyOfCall(reply.raw, { chunks, abort: archive.abort }, CHUNK_BYTES)
      countSent(request, body)
      return await reply
        .type(framed ? FRAMED_ARCHIVE_TYPE : ARCHIVE_TYPE)
        .header('vary', 'Accept')
        .send(body)
    },
  )

  // The body of PUT is the tar itself, whatever type it says it has.
  void app.register(async (raw: App) => {
    raw.removeAllContentTypeParsers()
    raw.addContentTypeParser('*', (_request, payload, done) => done(null, payload))
    raw.put(
      '/v1/capsules/:id/files/archive',
      {
        config: { permission: 'capsules.use', records: 'capsule.write_archive' },
        schema: {
          tags: ['files'],
          summary: 'Unpack a tar into a directory.',
          description: writeText,
          consumes: [ARCHIVE_TYPE],
          params: capsuleParams,
          querystring: archiveQuerySchema,
          response: { 200: uploadResultSchema, ...errors },
        },
      },
      async (request) => {
        requirePlain(request.headers['content-encoding'])
        const body = request.body instanceof Readable ? request.body : request.raw
        const written = await writeArchive(await target(request, request.params.id, request.query), body)
        request.access = { ...request.access, bytes: written }
        return { path: request.query.path, bytes: written }
      },
    )
  })
}

function wantsFrames({ headers }: FastifyRequest): boolean {
  return headers.accept?.includes(FRAMED_ARCHIVE_TYPE) === true
}

/** @throws AppError when the tar is not complete, which cuts the connection */
async function* plain({ pieces }: OpenedArchive): AsyncGenerator<Uint8Array> {
  const { error } = yield* pieces
  if (error !== undefined) throw new AppError(error.code, error.message)
}

async function* frames({ pieces }: OpenedArchive): AsyncGenerator<Uint8Array> {
  try {
    let next = await pieces.next()
    for (; !next.done; next = await pieces.next()) {
      yield frameHead(next.value.length)
      yield next.value
    }
    yield endFrame(next.value)
  } catch (thrown) {
    const { code, message } = AppError.from(thrown)
    yield endFrame({ notes: [], error: { code, message } })
  } finally {
    await pieces.return({ notes: [] })
  }
}

/** @throws AppError `unsupported_media_type` */
function requirePlain(encoding: string | undefined): void {
  if (encoding === undefined || encoding.toLowerCase() === 'identity') return
  throw new AppError('unsupported_media_type', `Send the tar as it is, not with Content-Encoding: ${encoding}.`)
}
