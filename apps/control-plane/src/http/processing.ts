import type { FastifyReply, FastifyRequest } from 'fastify'

/** Well below the five minutes after which Node's fetch gives up a request whose answer has not begun. */
const SIGN_EVERY_MS = 60_000
const PREFERENCE = 'processing'

/**
 * Tells a client that asked for it with `Prefer: processing` (RFC 7240) by interim answers 102 that its request is still worked
 * on. Clients that do not ask get none: some take the first status they see for the answer.
 * @returns what ends the signs; the answer itself ends them too
 */
export function signsOfWork(
  request: FastifyRequest,
  { raw }: FastifyReply,
  everyMs: number = SIGN_EVERY_MS,
): Disposable {
  const timer = wantsSigns(request)
    ? setInterval(() => {
        if (!raw.headersSent && !raw.destroyed) raw.writeProcessing()
      }, everyMs)
    : undefined
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

function wantsSigns({ headers, raw }: FastifyRequest): boolean {
  // HTTP/1.0 knows no interim answers.
  if (raw.httpVersion === '1.0') return false
  return [headers.prefer ?? []].flat().some((value) => value.split(',').some((token) => token.trim() === PREFERENCE))
}
