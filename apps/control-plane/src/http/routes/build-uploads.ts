import { Readable } from 'node:stream'
import { filesHashSchema, text } from '@wrenn/protocol'
import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { UploadTicket } from '../../domain/templates/index.js'
import type { App, Services } from '../context.js'

const PATH = '/v3/template-files'

const paramsSchema = z.object({ team: text(100, 1), hash: filesHashSchema })
const querySchema = z.object({
  build: text(100, 1),
  by: text(100, 1),
  expires: z.coerce.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  signature: text(128, 1),
})

/** Where the holder of a ticket sends its files: to where its request came. */
export function uploadUrl({ protocol, host }: FastifyRequest, ticket: UploadTicket): string {
  const { teamId, hash, buildId, by, expires, signature } = ticket
  const query = new URLSearchParams({ build: buildId, by, expires: String(expires), signature })
  return `${protocol}://${host}${PATH}/${teamId}/${hash}?${query}`
}

/** Files of builds. The signature of the link is the credential: who has it needs no key. */
export function uploadRoutes(app: App, { templateBuilds }: Services): void {
  // The body is the tar itself, whatever type it says it has.
  void app.register(async (raw: App) => {
    raw.removeAllContentTypeParsers()
    raw.addContentTypeParser('*', (_request, payload, done) => done(null, payload))
    raw.put(
      `${PATH}/:team/:hash`,
      { config: { permission: 'public' }, schema: { hide: true, params: paramsSchema, querystring: querySchema } },
      async (request, reply) => {
        const { build: buildId, ...rest } = request.query
        const ticket = { ...rest, buildId, teamId: request.params.team, hash: request.params.hash }
        const body = request.body instanceof Readable ? request.body : request.raw
        try {
          await templateBuilds.upload(ticket, body, lengthOf(request))
        } catch (error) {
          // What is refused is not read to its end: the connection is of no use afterwards.
          void reply.header('connection', 'close')
          request.raw.resume()
          throw error
        }
        return await reply.status(200).send()
      },
    )
  })
}

function lengthOf({ headers }: FastifyRequest): number | undefined {
  const length = Number(headers['content-length'])
  return Number.isSafeInteger(length) && length >= 0 ? length : undefined
}
