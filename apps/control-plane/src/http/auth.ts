import { AppError } from '@wrenn/base'
import type { FastifyRequest } from 'fastify'
import { need, type Principal } from '../domain/accounts/index.js'
import type { Actor } from '../store/schema.js'
import type { App, Services } from './context.js'

/**
 * Refuses to register a route that does not say who may use it, and writes into the document what it says. To be called before any
 * route is there.
 */
export function requirePermissions(app: App): void {
  app.addHook('onRoute', ({ method, url, config, schema }) => {
    if (config?.permission === undefined) throw new Error(`${method} ${url} names no permission`)
    if (config.permission !== 'public' && schema !== undefined) {
      Object.assign(schema, { 'x-permission': config.permission })
    }
  })
}

/** Lets a request of the routes below through when its key may do what the route needs; a WebSocket may bring its key later. */
export function authenticate(app: App, { apiKeys }: Services): void {
  app.addHook('onRequest', async (request) => {
    const key = keyOf(request)
    if (key === undefined && request.ws && request.routeOptions.config.auth === 'socket') return
    request.principal = await apiKeys.authenticate(key)
    admit(request, request.principal)
  })
}

/** @throws AppError `forbidden` when the principal may not do what the route is for */
export function admit({ routeOptions }: FastifyRequest, principal: Principal): void {
  const { permission } = routeOptions.config
  if (permission === undefined || permission === 'public') throw new Error(`${routeOptions.url} names no permission`)
  need(principal, permission)
}

/** `X-API-Key: <key>`, or `Authorization: Bearer <key>`. */
function keyOf(request: FastifyRequest): string | undefined {
  const header = request.headers['x-api-key']
  if (header !== undefined) return String(header)
  return /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1]
}

/** Who makes a request that went through `authenticate`. */
export function principalOf(request: FastifyRequest): Principal {
  if (request.principal === null) throw new AppError('unauthorized', 'This call needs an API key.')
  return request.principal
}

/** Who asks for the change that a request is about, for records of it. */
export function actorOf(request: FastifyRequest): Actor {
  const { id, name } = principalOf(request)
  return { id, name, requestId: request.id, ip: request.ip }
}
