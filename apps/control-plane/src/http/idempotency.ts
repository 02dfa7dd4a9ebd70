import { IDEMPOTENCY_HEADER } from '@wrenn/protocol'
import { z } from 'zod'

/** Headers of requests that become operations. */
export const idempotencyHeaders = z.object({
  [IDEMPOTENCY_HEADER]: z
    .string()
    .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 printable ASCII characters')
    .optional()
    .describe('The same key and body give the same answer and happen once, also after a lost answer.'),
})

interface Request {
  readonly headers: z.output<typeof idempotencyHeaders>
  readonly query: { readonly wait_sec: number }
}

/** How a request wants its operation. */
export function requestOptions({ headers, query }: Request) {
  return { idempotencyKey: headers[IDEMPOTENCY_HEADER], waitMs: query.wait_sec * 1000 }
}
