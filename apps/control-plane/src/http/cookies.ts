import { AppError } from '@wrenn/base'
import { CSRF_HEADER } from '@wrenn/protocol'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Opened } from '../domain/people/index.js'

const ACCESS = 'wrenn_access'
const REFRESH = 'wrenn_refresh'
/** As long as a session lasts without a refresh; its end is the server's matter. */
const MAX_AGE_SEC = 30 * 24 * 3600
/** No page of another host of this domain can set a cookie of such a name, so none can log a browser in as somebody else. */
const SECURE_PREFIX = '__Host-'

/** Puts tokens into cookies that scripts cannot read, and that go with requests of this site's own pages alone. */
export function setCookies(request: FastifyRequest, reply: FastifyReply, { token, refresh_token }: Opened): void {
  const options = { ...optionsFor(request), maxAge: MAX_AGE_SEC }
  void reply.setCookie(nameFor(request, ACCESS), token, options)
  void reply.setCookie(nameFor(request, REFRESH), refresh_token, options)
}

/** Takes them away. */
export function clearCookies(request: FastifyRequest, reply: FastifyReply): void {
  for (const name of [ACCESS, REFRESH]) void reply.clearCookie(nameFor(request, name), optionsFor(request))
}

export function accessCookie(request: FastifyRequest): string | undefined {
  return cookie(request, ACCESS)
}

export function refreshCookie(request: FastifyRequest): string | undefined {
  return cookie(request, REFRESH)
}

/**
 * Cookies come along whoever has made the browser ask, also a page in a capsule, which may be of the same site: so they count only when
 * the browser says that a page of this very host asks, or a header says it that pages of others cannot set.
 * @throws AppError `forbidden`
 */
export function requireOwnPage(request: FastifyRequest): void {
  const { origin, 'sec-fetch-site': site } = request.headers
  const isOwn = origin === undefined ? request.headers[CSRF_HEADER] !== undefined : hostOf(origin) === request.host
  const isReading = ['GET', 'HEAD'].includes(request.method) && !request.ws && origin === undefined
  const isForeign = site !== undefined && site !== 'same-origin' && site !== 'none'
  if (!isForeign && (isOwn || isReading)) return
  throw new AppError('forbidden', 'A page from elsewhere has asked, with the cookie of a session here.', {
    details: { header: CSRF_HEADER },
  })
}

function hostOf(origin: string): string | undefined {
  return /^https?:\/\/([^/]+)$/.exec(origin)?.[1]
}

function cookie(request: FastifyRequest, name: string): string | undefined {
  const secure = request.cookies[SECURE_PREFIX + name]
  return secure !== undefined || isOverTls(request) ? secure : request.cookies[name]
}

/** Browsers send this header only over TLS, and to the machine that they run on. */
function isOverTls({ headers }: FastifyRequest): boolean {
  const isLocal = /^(?:localhost|.*\.localhost|127\.[\d.]+|\[::1\])(?::\d+)?$/.test(headers.host ?? '')
  return headers['sec-fetch-site'] !== undefined && !isLocal
}

function isSecure(request: FastifyRequest): boolean {
  return request.protocol === 'https' || request.headers.origin?.startsWith('https:') === true
}

function nameFor(request: FastifyRequest, name: string): string {
  return isSecure(request) ? SECURE_PREFIX + name : name
}

function optionsFor(request: FastifyRequest) {
  return { path: '/', httpOnly: true, sameSite: 'strict', secure: isSecure(request) } as const
}
