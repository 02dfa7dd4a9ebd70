import { IDEMPOTENCY_HEADER } from '@wrenn/protocol'
import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import { actorOf } from './auth.js'

/** Headers of requests that become operations. */
export const idempotencyHeaders = z.object({
  [IDEMPOTENCY_HEADER]: z
    .string()
    .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 printable ASCII characters')
    .optional()
    .describe('The same key and body give the same answer and happen once, also after a lost answer.'),
})

interface Options {
  readonly headers: z.output<typeof idempotencyHeaders>
  readonly query: { readonly wait_sec: number }
}

/** How a request wants its operation, and who asks. */
export function requestOptions(
  request: FastifyRequest<{ Headers: Options['headers']; Querystring: Options['query'] }>,
) {
  const { headers, query } = request
  return { idempotencyKey: headers[IDEMPOTENCY_HEADER], waitMs: query.wait_sec * 1000, actor: actorOf(request) }
}
