import { createHash, timingSafeEqual } from 'node:crypto'
import { AppError } from '@wrenn/base'
import { PORT_TOKEN_HEADER, PORT_TOKEN_QUERY } from '@wrenn/protocol'
import type { ApiKeys, Principal } from '../domain/accounts/index.js'
import { need } from '../domain/accounts/index.js'
import type { Destination, RequestHead } from './destination.js'
import type { Route } from './routes.js'

/** Of the proxy alone; services never see it. */
export const PORT_COOKIE = 'wrenn_port_token'
/** What existing clients of sandboxes send. */
export const TRAFFIC_TOKEN_HEADER = 'e2b-traffic-access-token'
/** Opens the guest agent of a capsule. */
export const ACCESS_TOKEN_HEADER = 'x-access-token'
/** API keys of the platform, also as `Authorization`. A service may have keys of its own under the same names. */
export const API_KEY = /^(?:Bearer +)?((?:wrn|e2b)_\w+)$/i

/** A browser came with the token in its address: it is told to come again without, and keeps it as a cookie. */
interface Welcome {
  readonly location: string
  readonly cookie: string
}

/** Lets a request through to a private capsule, or a public one. `path` is without the token, which no service is to see. */
export interface Admission {
  readonly path: string
  readonly welcome?: Welcome
  /** Whose key let it through, when one did. */
  readonly principal?: Principal
  /** See {@link Destination.withheld}. */
  readonly withheld?: readonly string[]
}

/**
 * Whether a request may reach the ports of its capsule.
 * @throws AppError `forbidden`
 */
export async function admit(
  request: RequestHead,
  destination: Destination,
  route: Route,
  apiKeys: Pick<ApiKeys, 'authenticate'>,
): Promise<Admission> {
  const { path, token } = splitToken(destination.path)
  const admission = { path, withheld: hasAccessToken(request, route) ? [ACCESS_TOKEN_HEADER] : [] }
  if (route.token === undefined || hasTokenHeader(request, route.token)) return admission
  if (token !== undefined && isSame(token, route.token)) return welcomed(request, destination, admission, route.token)
  if (cookiesOf(request).some((value) => isSame(value, route.token ?? ''))) {
    requireOwnPage(request, destination)
    return admission
  }
  const principal = await keyOfTeam(request, route, apiKeys)
  if (principal !== undefined) return { ...admission, principal }
  throw new AppError('forbidden', `The ports of this capsule are private: send its token as ${PORT_TOKEN_HEADER}.`)
}

function hasTokenHeader({ headers }: RequestHead, token: string): boolean {
  return [headers[PORT_TOKEN_HEADER], headers[TRAFFIC_TOKEN_HEADER]].some(
    (value) => typeof value === 'string' && isSame(value, token),
  )
}

/** @returns whose key a request has, if that key is of the capsule's team @throws AppError `forbidden` for one that may not use capsules */
export async function keyOfTeam(
  { headers }: RequestHead,
  { teamId }: Route,
  apiKeys: Pick<ApiKeys, 'authenticate'>,
): Promise<Principal | undefined> {
  const given = API_KEY.exec(String(headers['x-api-key'] ?? headers.authorization ?? '').trim())?.[1]
  if (given === undefined) return undefined
  const principal = await apiKeys.authenticate(given).catch((error: unknown) => {
    if (!AppError.is(error, 'unauthorized')) throw error
  })
  if (principal?.teamId !== teamId) return undefined
  need(principal, 'capsules.use')
  return principal
}

/** A page is shown its address again without the token; a program is served at once. */
function welcomed(
  request: RequestHead,
  { domain, isSecure }: Destination,
  admission: Admission,
  token: string,
): Admission {
  const { path } = admission
  const isPage = request.method === 'GET' && /\btext\/html\b/i.test(request.headers.accept ?? '')
  if (!isPage || domain === undefined || request.headers.upgrade !== undefined) return admission
  const location = `${isSecure ? 'https' : 'http'}://${request.headers.host}${path}`
  return {
    path,
    welcome: {
      location,
      cookie: `${PORT_COOKIE}=${token}; Path=/; HttpOnly; SameSite=Lax${isSecure ? '; Secure' : ''}`,
    },
  }
}

/**
 * A cookie comes along whoever has made the browser ask. Pages of other capsules may be of the same site, so `SameSite` is not enough.
 * @throws AppError `forbidden`
 */
function requireOwnPage({ headers }: RequestHead, { capsuleId, domain }: Destination): void {
  const { origin, 'sec-fetch-site': site, 'sec-fetch-mode': mode } = headers
  const isOwn =
    origin !== undefined && new RegExp(`^https?://\\d+-${capsuleId}\\.`).test(origin) && origin.endsWith(`.${domain}`)
  const isForeign = site !== undefined && site !== 'same-origin' && site !== 'none' && mode !== 'navigate'
  if (isOwn || (origin === undefined && !isForeign)) return
  throw new AppError('forbidden', 'The ports of this capsule are private, and a page from elsewhere has asked.')
}

/** Takes the query token out of a path or an address. */
export function splitToken(path: string): { readonly path: string; readonly token: string | undefined } {
  const mark = path.indexOf('?')
  if (mark < 0 || !path.includes(PORT_TOKEN_QUERY, mark)) return { path, token: undefined }
  const [kept, tokens]: [string[], string[]] = [[], []]
  for (const field of path.slice(mark + 1).split('&')) {
    if (field.startsWith(`${PORT_TOKEN_QUERY}=`)) tokens.push(field.slice(PORT_TOKEN_QUERY.length + 1))
    else kept.push(field)
  }
  return { path: path.slice(0, mark) + (kept.length > 0 ? `?${kept.join('&')}` : ''), token: tokens[0] }
}

function cookiesOf({ headers }: RequestHead): string[] {
  const pairs = (headers.cookie ?? '').split(';').map((pair) => pair.trim())
  return pairs.flatMap((pair) => (pair.startsWith(`${PORT_COOKIE}=`) ? [pair.slice(PORT_COOKIE.length + 1)] : []))
}

/** The `Cookie` header for the service; empty when nothing is left. */
export function withoutPortCookie(value: string): string {
  const kept = value.split(';').filter((pair) => !pair.trim().startsWith(`${PORT_COOKIE}=`))
  return kept.join(';').trim()
}

/** Whether a request has the token for the guest agent, which clients also send to services. */
export function hasAccessToken({ headers }: RequestHead, { accessToken }: Route): boolean {
  const given = headers[ACCESS_TOKEN_HEADER]
  return accessToken !== undefined && typeof given === 'string' && isSame(given, accessToken)
}

/** Takes as long whatever is the same. */
function isSame(given: string, token: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(given), digest(token))
}
