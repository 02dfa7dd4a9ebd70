import type { ServerResponse } from 'node:http'
import { Readable } from 'node:stream'

interface OpenCall {
  readonly chunks: AsyncIterable<Uint8Array>
  /** Ends the call; idempotent. */
  readonly abort: () => void
}

/**
 * What a call to a host gives, as the body of an answer. The call ends with the body and with the connection: an iterator that nobody has
 * begun does nothing at its end, and one that waits for its host ends only with what it waits for.
 */
export function bodyOfCall(
  answer: Pick<ServerResponse, 'once' | 'destroyed'>,
  { chunks, abort }: OpenCall,
  highWaterMark?: number,
): Readable {
  const body = Readable.from(chunks, { objectMode: false, ...(highWaterMark && { highWaterMark }) })
  body.once('close', abort)
  answer.once('close', abort)
  if (answer.destroyed) body.destroy()
  return body
}
