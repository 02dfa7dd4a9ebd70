import { randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AppError } from '@wrenn/base'
import { ERROR_CODE_HEADER, errorKind, RETRY_AFTER_HEADER } from '@wrenn/protocol'
import { errorBody } from '../http/errors.js'
import type { Wording } from './sandbox-words.js'

/** What a person reads first, by what is wrong. */
const titles: Readonly<Record<string, string>> = {
  forbidden: 'This address is private',
  port_closed: 'Nobody listens on this port',
  invalid_state: 'This capsule is asleep',
  capsule_ended: 'This capsule is gone',
  capsule_not_found: 'There is no such capsule',
}

/**
 * Answers in place of a service: a page for browsers; for programs the API's JSON, or the words of the clients that the capsule is for. The
 * header `wrenn-error-code` marks it as ours.
 */
export function sendFailure(
  request: IncomingMessage,
  response: ServerResponse,
  error: AppError,
  words?: Wording,
): void {
  if (response.headersSent || response.destroyed) return void response.destroy()
  const requestId = `req-${randomBytes(8).toString('hex')}`
  const kind = errorKind(error.code)
  const isPage = /\btext\/html\b/i.test(request.headers.accept ?? '')
  const body = Buffer.from(
    isPage ? page(error, kind.hint, requestId) : JSON.stringify(words?.body ?? errorBody(error, requestId)),
  )
  const retryAfterSec = error.details?.retryAfterSec
  // What is still to come of the request's body is of no use to anybody.
  if (!request.complete || error.code === 'invalid_request') response.shouldKeepAlive = false
  if (typeof retryAfterSec === 'number') response.setHeader(RETRY_AFTER_HEADER, retryAfterSec)
  response.writeHead(words?.status ?? kind.status, {
    'content-type': isPage ? 'text/html; charset=utf-8' : 'application/json; charset=utf-8',
    'content-length': body.length,
    'cache-control': 'no-store',
    'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors *",
    'x-content-type-options': 'nosniff',
    vary: 'Accept',
    [ERROR_CODE_HEADER]: error.code,
  })
  response.end(request.method === 'HEAD' ? undefined : body)
}

/** Shows a browser its address again, without the token that it keeps as a cookie from now on. */
export function sendWelcome(
  response: ServerResponse,
  { location, cookie }: { readonly location: string; readonly cookie: string },
): void {
  response.writeHead(302, {
    location,
    'set-cookie': cookie,
    'cache-control': 'no-store',
    'referrer-policy': 'no-referrer',
    'content-length': 0,
  })
  response.end()
}

function page(error: AppError, hint: string | undefined, requestId: string): string {
  const title = titles[error.code] ?? 'This address does not answer'
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${title}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;color:#222}h1{font-size:1.4rem}small{color:#666}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}small{color:#999}}</style>
<h1>${title}</h1>
<p>${escaped(error.message)}</p>
${hint === undefined ? '' : `<p>${escaped(hint)}</p>\n`}<small>${escaped(error.code)} · ${requestId}</small>
</html>
`
}

function escaped(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}
