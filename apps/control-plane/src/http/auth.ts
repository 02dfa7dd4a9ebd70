import { AppError } from '@wrenn/base'
import type { FastifyRequest } from 'fastify'
import type { ApiKeyOwner } from '../store/teams.js'
import type { App, Services } from './context.js'

/** Every route below needs a team; only a WebSocket may name it later, in its first message. */
export function authenticate(app: App, { apiKeys }: Services): void {
  app.addHook('onRequest', async (request) => {
    const key = keyOf(request)
    if (key === undefined && request.ws && request.routeOptions.config.auth === 'socket') return
    request.owner = await apiKeys.authenticate(key)
  })
}

/** `X-API-Key: <key>`, or `Authorization: Bearer <key>`. */
function keyOf(request: FastifyRequest): string | undefined {
  const header = request.headers['x-api-key']
  if (header !== undefined) return String(header)
  return /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1]
}

/** The team of a request that went through `authenticate`. */
export function ownerOf(request: FastifyRequest): ApiKeyOwner {
  if (request.owner === null) throw new AppError('unauthorized', 'This call needs an API key.')
  return request.owner
}
