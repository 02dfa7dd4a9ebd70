import type { App } from './context.js'

const METHODS = 'GET, HEAD, POST, PUT, PATCH, DELETE'
const REQUEST_HEADERS = [
  'X-API-Key, Authorization, Idempotency-Key, Content-Type, Content-Encoding, Prefer, Connect-Protocol-Version',
  'traceparent, tracestate',
  'Range, If-Range, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since',
  // Clients made for E2B say with each call what they are.
  'browser, lang, lang_version, package_version, publisher, sdk_runtime, system',
].join(', ')
const ANSWER_HEADERS =
  'x-request-id, x-next-token, content-range, content-length, accept-ranges, etag, last-modified, retry-after'
const PREFLIGHT_MAX_AGE_SEC = 86_400

/**
 * Lets pages of these origins use the API; `*` means every page. Keys are sent explicitly, and cookies count only for
 * pages of this host (`cookies.ts`), so a page from elsewhere can do nothing here without a key that it was given.
 */
export function allowOrigins(app: App, origins: readonly string[]): void {
  const any = origins.includes('*')
  app.addHook('onRequest', async (request, reply) => {
    const { origin } = request.headers
    if (!any) void reply.header('vary', 'Origin')
    if (origin === undefined || !(any || origins.includes(origin))) return
    void reply
      .header('access-control-allow-origin', any ? '*' : origin)
      .header('access-control-expose-headers', ANSWER_HEADERS)
    if (request.method !== 'OPTIONS' || request.headers['access-control-request-method'] === undefined) return
    return await reply
      .header('access-control-allow-methods', METHODS)
      .header('access-control-allow-headers', REQUEST_HEADERS)
      .header('access-control-max-age', PREFLIGHT_MAX_AGE_SEC)
      .status(204)
      .send()
  })
}
