import { IDEMPOTENCY_HEADER, text } from '@wrenn/protocol'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { Capsules } from '../domain/capsules/index.js'
import { actorOf, principalOf } from '../http/auth.js'
import { idempotencyHeaders } from '../http/idempotency.js'
import type { CapsuleRow } from '../store/schema.js'
import { capsuleIdOf, needLive } from './sandbox.js'

/** Their clients wait a minute for an answer. */
const ANSWER_WITHIN_MS = 55_000

/** What all routes have in common: none is in our document, and some may be repeated safely. */
export const hidden = { hide: true } as const
export const headers = idempotencyHeaders

/** An id that is none names no sandbox, which is another answer than a wrong request. */
export const sandboxParams = z.object({ id: z.string() })

export const templateParams = z.object({ name: text(200, 1) })

type SandboxRequest = FastifyRequest<{ Params: { id: string } }>

/** The id of the capsule that a request is about. @throws AppError `capsule_not_found` */
export function idOf({ params }: SandboxRequest): string {
  return capsuleIdOf(params.id)
}

/** The sandbox that a request is about. @throws AppError `capsule_not_found`, also when it has ended */
export async function liveOf(request: SandboxRequest, capsules: Pick<Capsules, 'get'>): Promise<CapsuleRow> {
  return needLive(await capsules.get(principalOf(request).teamId, idOf(request)))
}

/** How a request wants its operation, and who asks. */
export function optionsOf(request: FastifyRequest) {
  const key = request.headers[IDEMPOTENCY_HEADER]
  return {
    idempotencyKey: typeof key === 'string' ? key : undefined,
    waitMs: ANSWER_WITHIN_MS,
    actor: actorOf(request),
  }
}

/** The page after this one, if there is one. */
export function tellNext(reply: FastifyReply, cursor: string | undefined): void {
  if (cursor !== undefined) void reply.header('x-next-token', cursor)
}
