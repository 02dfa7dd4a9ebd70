import type { FastifyReply } from 'fastify'

/** Ends when the client goes away before it got its answer. */
export function hangUpOf(reply: FastifyReply): AbortSignal {
  const hangUp = new AbortController()
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) hangUp.abort()
  })
  // It went away while its key was looked up: nobody tells of that again.
  if (reply.raw.destroyed) hangUp.abort()
  return hangUp.signal
}
