import { AppError } from '@wrenn/base'
import { CSRF_HEADER } from '@wrenn/protocol'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { newSecret, type Opened } from '../domain/people/index.js'

const ACCESS = 'wrenn_access'
const REFRESH = 'wrenn_refresh'
/** Binds a sign-in by a provider to its browser. */
const BROWSER = 'wrenn_oauth'
/** From the last sign-in that began in this browser on. */
const BROWSER_SEC = 10 * 60
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

/** The answer to whatever begins or goes on with a session: tokens are in it or in cookies, never in both. */
export function answerOpened(request: FastifyRequest, reply: FastifyReply, opened: Opened, cookies: boolean) {
  void reply.header('cache-control', 'no-store')
  if (!cookies) return opened
  setCookies(request, reply, opened)
  const { token: _, refresh_token: __, ...open } = opened
  return open
}

/**
 * What this browser keeps while it signs in by a provider; the same for sign-ins in several tabs. It comes along when a provider
 * sends the browser back, which cookies of a session do not.
 */
export function keepBrowserSecret(request: FastifyRequest, reply: FastifyReply, secure: boolean): string {
  const secret = takeBrowserSecret(request, secure) ?? newSecret()
  const options = { path: '/', httpOnly: true, sameSite: 'lax', secure, maxAge: BROWSER_SEC } as const
  void reply.setCookie(browserCookie(secure), secret, options)
  return secret
}

/** `undefined` where this browser has begun no sign-in of late. @param secure whether people are here by TLS */
export function takeBrowserSecret(request: FastifyRequest, secure: boolean): string | undefined {
  const secret = request.cookies[browserCookie(secure)]
  return secret !== undefined && /^[\w-]{43}$/.test(secret) ? secret : undefined
}

function browserCookie(secure: boolean): string {
  return secure ? SECURE_PREFIX + BROWSER : BROWSER
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
