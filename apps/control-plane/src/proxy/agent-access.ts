import { AppError, queryText, verifySignature } from '@wrenn/base'
import { isClientRoute } from '@wrenn/protocol/guest'
import type { ApiKeys } from '../domain/accounts/index.js'
import { ACCESS_TOKEN_HEADER, type Admission, hasAccessToken, keyOfTeam } from './access.js'
import type { Destination, RequestHead } from './destination.js'
import type { Route } from './routes.js'

/** What a signature covers, and itself. */
const SIGNED_QUERY: ReadonlySet<string> = new Set(['path', 'username', 'signature', 'signature_expiration'])

/**
 * Whether a client may ask the guest agent for this. Who has the capsule's access token may, or an API key of its team that may use capsules;
 * a signed URL reads one file or writes what its `path` names, which for an upload without one is whatever the parts of its form name. Without either it is only told whether a capsule that has such a token is there.
 * @throws AppError `not_found` for what is not for clients, `unauthorized`, `forbidden`
 */
export async function admitToAgent(
  request: RequestHead,
  { path }: Destination,
  route: Route,
  apiKeys: Pick<ApiKeys, 'authenticate'>,
): Promise<Admission> {
  const admission = { path, withheld: [ACCESS_TOKEN_HEADER] }
  if (hasAccessToken(request, route)) return admission
  if (routeOf(path) === '/health' && route.accessToken !== undefined) return admission
  const principal = await keyOfTeam(request, route, apiKeys)
  if (principal !== undefined) return { ...admission, principal }
  if (routeOf(path) !== '/files') throw new AppError('unauthorized', `The request needs ${ACCESS_TOKEN_HEADER}.`)
  requireSignature(request, path, route)
  // The signature names the user.
  return { path, withheld: [ACCESS_TOKEN_HEADER, 'authorization'] }
}

/**
 * Nobody wakes a capsule by asking for what is not there.
 * @throws AppError `not_found`
 */
export function requireClientRoute({ method = '' }: RequestHead, { path }: Destination): void {
  if (!isClientRoute(method, routeOf(path))) throw new AppError('not_found', 'The guest agent has no such route.')
}

function routeOf(path: string): string {
  return path.split('?', 1)[0] ?? ''
}

/** As the guest agent reads the same query. @throws AppError `unauthorized` */
function requireSignature({ method }: RequestHead, path: string, { accessToken }: Route): void {
  const query = queryText(path.slice(routeOf(path).length + 1))
  // What is not signed is not for whoever holds the URL to choose: a `mode` would make a file that its user cannot.
  for (const name of query.keys()) {
    if (!SIGNED_QUERY.has(name)) throw new AppError('unauthorized', `A signed URL has no ${name.slice(0, 100)}.`)
  }
  const get = (name: string): string | undefined => query.get(name) ?? undefined
  const operation = method === 'POST' ? 'write' : 'read'
  const file = { path: get('path') ?? '', operation, user: get('username') ?? '' } as const
  verifySignature(get('signature'), { ...file, expiration: get('signature_expiration') }, accessToken)
}
