import type { Readable } from 'node:stream'
import { AppError, contentCoding, unpacked } from '@wrenn/base'
import {
  fileEntryAnswerSchema,
  fileListSchema,
  listDirRequestSchema,
  moveFileRequestSchema,
  pathRequestSchema,
  rawFileQuerySchema,
  readFileRequestSchema,
  uploadResultSchema,
  writeFileQuerySchema,
} from '@wrenn/protocol'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { type FileTarget, openFile, toFileEntry, writeFile } from '../../domain/commands/index.js'
import type { HostClient } from '../../host/transport.js'
import { principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { readUpload } from '../multipart.js'
import { bytes, capsuleParams, errors, noContent } from '../schemas.js'

interface Named {
  readonly path: string
  readonly user?: string | undefined
}

/** Files by JSON bodies and by raw bytes. Paths are only checked for form here; the guest decides what they lead to. */
export function fileRoutes(app: App, services: Services): void {
  const target = targetOf(services)
  readRoutes(app, target)
  writeRoutes(app, target)
  entryRoutes(app, services)
}

type TargetOf = (request: FastifyRequest, id: string, file: Named) => Promise<FileTarget>

/** Also makes the capsule ready, so that a file of one that cannot be used is refused before a byte of it is read. */
export function targetOf({ wake, host, activity }: Services): TargetOf {
  return async (request, id, { path, user }) => {
    const capsule = { teamId: principalOf(request).teamId, id }
    await wake.ready(capsule)
    request.access = { path, user }
    activity.touch(id)
    return { client: host.client, wake, capsule, path, user: user ?? '' }
  }
}

function readRoutes(app: App, target: TargetOf): void {
  for (const url of ['/v1/capsules/:id/files/read', '/v1/capsules/:id/files/stream/read']) {
    app.post(
      url,
      {
        config: { permission: 'capsules.use', records: 'capsule.read_file' },
        schema: {
          tags: ['files'],
          summary: 'Read a file, or a part of it.',
          produces: ['application/octet-stream'],
          params: capsuleParams,
          body: readFileRequestSchema,
          response: { 200: bytes, ...errors },
        },
      },
      async (request, reply) => {
        const { offset = 0, length } = request.body
        const file = await openFile(await target(request, request.params.id, request.body), { offset, length })
        countSent(request, file.body)
        if (file.length !== undefined) void reply.header('content-length', file.length)
        return await reply.type('application/octet-stream').send(file.body)
      },
    )
  }

  app.route({
    method: ['GET', 'HEAD'],
    url: '/v1/capsules/:id/files',
    exposeHeadRoute: false,
    config: { permission: 'capsules.use', records: 'capsule.read_file' },
    schema: {
      tags: ['files'],
      summary: 'Download a file; answers one byte range (`Range`) and conditions (RFC 9110).',
      produces: ['application/octet-stream'],
      params: capsuleParams,
      querystring: rawFileQuerySchema,
      response: { 200: bytes, 206: bytes, ...errors },
    },
    handler: async (request, reply) => {
      const file = await target(request, request.params.id, request.query)
      return await send(file, request, reply)
    },
  })
}

/** Which part a client wants, and of which version of the file. The guest judges them, on the file that it opened. */
const passedOn = ['range', 'if-range', 'if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since'] as const

/** For the entry about the request: what went into the answer, also when its client has left. */
export function countSent(request: FastifyRequest, body: Readable): void {
  const access = { ...request.access, bytes: 0 }
  request.access = access
  body.on('data', ({ length }: Uint8Array) => {
    access.bytes += length
  })
  // Until the answer takes it.
  body.pause()
}

/** Which version of a file an upload may replace. */
const passedOnWrites = ['if-match', 'if-none-match', 'if-unmodified-since'] as const

function headersOf({ headers }: FastifyRequest, names: readonly string[]): Record<string, string> {
  const asked: Record<string, string> = {}
  for (const name of names) {
    const value = headers[name]
    if (value !== undefined) asked[name] = String(value)
  }
  return asked
}

async function send(file: FileTarget, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const asked = headersOf(request, passedOn)
  const wish = Object.keys(asked).length === 0 ? { offset: 0 } : { headers: asked, statOnly: false }
  const isHead = request.method === 'HEAD'
  const { body, length, status, headers } = await openFile(file, isHead ? { headers: asked, statOnly: true } : wish)
  countSent(request, body)
  // Browsers would keep what has a date, and show it after the file has changed.
  void reply.type('application/octet-stream').header('cache-control', 'no-store').headers(headers)
  if (status === 416) {
    body.destroy()
    throw new AppError('range_not_satisfiable', 'The file does not have the bytes of that range.')
  }
  void reply.status(status)
  if (status === 304 || isHead) body.destroy()
  if (length !== undefined && status !== 304) void reply.header('content-length', length)
  return await (status === 304 || isHead ? reply.send() : reply.send(body))
}

const writeText = `Takes \`If-Match\`, \`If-None-Match\` and \`If-Unmodified-Since\` (RFC 9110): 412 when the file is another version at
the moment it would be replaced. \`If-None-Match: *\` writes only where there is no file.`

function writeRoutes(app: App, target: TargetOf): void {
  for (const url of ['/v1/capsules/:id/files/write', '/v1/capsules/:id/files/stream/write']) {
    app.post(
      url,
      {
        config: { permission: 'capsules.use', records: 'capsule.write_file' },
        schema: {
          tags: ['files'],
          summary: 'Write a file from a form: `path` (and `user`) first, then `file`. Makes the folders above it.',
          consumes: ['multipart/form-data'],
          params: capsuleParams,
          querystring: pathRequestSchema.partial().strip(),
          response: { 204: noContent, ...errors },
        },
      },
      async (request, reply) => {
        // Refused before any byte of the file is read.
        await target(request, request.params.id, { path: '/' })
        await readUpload(request, request.query, async (file, body) => {
          const bytes = await writeFile(await target(request, request.params.id, file), body)
          request.access = { ...request.access, bytes }
        })
        return await reply.status(204).send()
      },
    )
  }

  // The body of PUT is the file itself, whatever type it says it has.
  void app.register(async (raw: App) => {
    raw.removeAllContentTypeParsers()
    raw.addContentTypeParser('*', (_request, payload, done) => done(null, payload))
    raw.put(
      '/v1/capsules/:id/files',
      {
        config: { permission: 'capsules.use', records: 'capsule.write_file' },
        schema: {
          tags: ['files'],
          summary: 'Upload a file as the raw body, as it is or packed with gzip. Makes the folders above it.',
          description: writeText,
          consumes: ['application/octet-stream'],
          params: capsuleParams,
          querystring: writeFileQuerySchema,
          response: { 200: uploadResultSchema, ...errors },
        },
      },
      async (request) => {
        const body: Readable = isReadable(request.body) ? request.body : request.raw
        const coding = contentCoding(request.headers['content-encoding'])
        const file = await target(request, request.params.id, request.query)
        const { path, mode } = request.query
        const bytes = await unpacked(body, coding)
        try {
          const wish = {
            mode: mode === undefined ? undefined : Number.parseInt(mode, 8),
            headers: headersOf(request, passedOnWrites),
          }
          const written = await writeFile(file, bytes, wish)
          request.access = { ...request.access, bytes: written }
          return { path, bytes: written }
        } finally {
          // What is still sent of a body that is no gzip is read off, so that the client gets to read the answer.
          if (bytes !== body) body.unpipe().resume()
        }
      },
    )
  })
}

function isReadable(body: unknown): body is Readable {
  return typeof body === 'object' && body !== null && 'pipe' in body
}

function entryRoutes(app: App, { wake, host, activity }: Services): void {
  /** Makes a call on a capsule that runs; `about` is what an entry says of it. */
  const ask = async <T>(
    request: FastifyRequest,
    id: string,
    about: Record<string, string>,
    call: (client: HostClient, capsuleId: string) => Promise<T>,
  ): Promise<T> => {
    const answer = await wake.use({ teamId: principalOf(request).teamId, id }, () => {
      request.access = about
      return call(host.client, id)
    })
    activity.touch(id)
    return answer
  }
  const route = <Body extends z.ZodType, Answer extends z.ZodType>(
    records: `capsule.${string}`,
    summary: string,
    body: Body,
    answer: Answer,
  ) =>
    ({
      config: { permission: 'capsules.use', records },
      schema: { tags: ['files'], summary, params: capsuleParams, body, response: { 200: answer, ...errors } },
    }) as const

  app.post(
    '/v1/capsules/:id/files/list',
    route('capsule.list_files', 'List a directory.', listDirRequestSchema, fileListSchema),
    async (request) => {
      const { path, user = '', depth } = request.body
      const answer = await ask(request, request.params.id, { path, user }, (client, capsuleId) =>
        client.listDir({ capsuleId, path, user, depth: Math.max(1, depth) }),
      )
      return { entries: answer.entries.map(toFileEntry) }
    },
  )

  app.post(
    '/v1/capsules/:id/files/stat',
    route('capsule.stat_file', 'Describe a file or directory.', pathRequestSchema, fileEntryAnswerSchema),
    async (request) => {
      const { path, user = '' } = request.body
      const answer = await ask(request, request.params.id, { path, user }, (client, capsuleId) =>
        client.statFile({ capsuleId, path, user }),
      )
      return { entry: toFileEntry(answer.entry) }
    },
  )

  app.post(
    '/v1/capsules/:id/files/mkdir',
    route(
      'capsule.make_dir',
      'Make a directory and those above it; 409 when it exists.',
      pathRequestSchema,
      fileEntryAnswerSchema,
    ),
    async (request) => {
      const { path, user = '' } = request.body
      const answer = await ask(request, request.params.id, { path, user }, (client, capsuleId) =>
        client.makeDir({ capsuleId, path, user }),
      )
      return { entry: toFileEntry(answer.entry) }
    },
  )

  app.post(
    '/v1/capsules/:id/files/move',
    route('capsule.move_file', 'Move or rename.', moveFileRequestSchema, fileEntryAnswerSchema),
    async (request) => {
      const { source, destination, user = '' } = request.body
      const answer = await ask(request, request.params.id, { source, destination, user }, (client, capsuleId) =>
        client.moveFile({ capsuleId, source, destination, user }),
      )
      return { entry: toFileEntry(answer.entry) }
    },
  )

  app.post(
    '/v1/capsules/:id/files/remove',
    {
      config: { permission: 'capsules.use', records: 'capsule.remove_file' },
      schema: {
        tags: ['files'],
        summary: 'Remove a file, or a directory with all in it.',
        params: capsuleParams,
        body: pathRequestSchema,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      const { path, user = '' } = request.body
      await ask(request, request.params.id, { path, user }, (client, capsuleId) =>
        client.removeFile({ capsuleId, path, user }),
      )
      return await reply.status(204).send()
    },
  )
}
