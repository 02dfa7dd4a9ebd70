import { AppError } from '@wrenn/base'
import { ACCESS_TOKEN_PREFIX, type Permission, permissionsOf } from '@wrenn/protocol'
import type { FastifyRequest } from 'fastify'
import { need, type Principal, type UserPrincipal } from '../domain/accounts/index.js'
import type { From } from '../domain/people/index.js'
import type { Actor } from '../store/schema.js'
import type { App, Services } from './context.js'
import { accessCookie, requireOwnPage } from './cookies.js'

const alwaysAnswered: ReadonlySet<Permission> = new Set([
  ...permissionsOf(['platform']),
  'keys.read',
  'keys.write',
  'keys.manage',
])
const alwaysAnsweredToPeople: ReadonlySet<Permission> = new Set([
  ...alwaysAnswered,
  ...(['account.use', 'team.read', 'team.write', 'team.own', 'quota.read', 'audit.read'] as const),
])

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

/**
 * Lets a request of the routes below through when its key or its session may do what the route needs, and its team calls no more
 * often than it may; a WebSocket may bring its credentials later.
 */
export function authenticate(app: App, services: Services): void {
  app.addHook('onRequest', async (request) => {
    const given = credentialOf(request)
    if (given === undefined && request.ws && request.routeOptions.config.auth === 'socket') return
    request.principal = await admitted(request, given, services)
  })
}

/** Who makes the request. @throws AppError `unauthorized`, `account_deactivated`, `no_team`, `forbidden`, `limit_exceeded` */
export async function admitted(
  request: FastifyRequest,
  credential: string | undefined,
  services: Pick<Services, 'apiKeys' | 'sessionTokens' | 'callMeter'>,
): Promise<Principal> {
  const principal = await whoHas(credential, services)
  const permission = admit(request, principal)
  if (!isAlwaysAnswered(principal, permission)) await services.callMeter.count(principal.teamId)
  return principal
}

/** Who has lost a key to somebody that uses up the team's calls can find it and end it; and who manages the platform can raise the limit. */
function isAlwaysAnswered({ kind }: Principal, permission: Permission): boolean {
  return (kind === 'user' ? alwaysAnsweredToPeople : alwaysAnswered).has(permission)
}

async function whoHas(
  credential: string | undefined,
  { apiKeys, sessionTokens }: Pick<Services, 'apiKeys' | 'sessionTokens'>,
): Promise<Principal> {
  if (credential?.startsWith(ACCESS_TOKEN_PREFIX)) return await sessionTokens.authenticate(credential)
  return await apiKeys.authenticate(credential)
}

/** What the route is for. @throws AppError `forbidden` when the principal may not do it */
function admit({ routeOptions }: FastifyRequest, principal: Principal): Permission {
  const { permission } = routeOptions.config
  if (permission === undefined || permission === 'public') throw new Error(`${routeOptions.url} names no permission`)
  need(principal, permission)
  return permission
}

/** `X-API-Key: <key>`, or `Authorization: Bearer <key or token>`, or else the cookie of a page. @throws AppError `forbidden` */
function credentialOf(request: FastifyRequest): string | undefined {
  const header = request.headers['x-api-key']
  if (header !== undefined) return String(header)
  const bearer = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1]
  if (bearer !== undefined) return bearer
  if (isByMessage(request)) return undefined
  const cookie = accessCookie(request)
  if (cookie !== undefined) requireOwnPage(request)
  return cookie
}

/** A browser sends its cookies with every handshake; who brings a key of their own says so. */
function isByMessage({ ws, query, routeOptions }: FastifyRequest): boolean {
  if (!ws || routeOptions.config.auth !== 'socket' || typeof query !== 'object' || query === null) return false
  return 'auth' in query && query.auth === 'message'
}

/** Who makes a request that went through `authenticate`. */
export function principalOf(request: FastifyRequest): Principal {
  if (request.principal === null) throw new AppError('unauthorized', 'This call needs an API key.')
  return request.principal
}

/** The person who makes a request to a route that only people have the permission for. */
export function userOf(request: FastifyRequest): UserPrincipal {
  const principal = principalOf(request)
  if (principal.kind === 'user') return principal
  throw new AppError('forbidden', 'This is for people who have logged in, not for keys.')
}

/** Who asks for the change that a request is about, for records of it. */
export function actorOf(request: FastifyRequest): Actor {
  return actorFor(principalOf(request), request)
}

/** The same where the credentials came after the request. */
export function actorFor(principal: Principal, request: FastifyRequest): Actor {
  const { id, kind } = principal
  const name = principal.kind === 'user' ? principal.email : principal.name
  return { kind, id, name, requestId: request.id, ip: request.ip }
}

/** Where a request comes from. */
export function fromOf(request: FastifyRequest): From {
  return { ip: request.ip, userAgent: request.headers['user-agent'] ?? '', requestId: request.id }
}
