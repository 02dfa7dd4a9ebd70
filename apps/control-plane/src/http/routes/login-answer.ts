import type { SecondFactorNeeded } from '@wrenn/protocol'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { LoginResult } from '../../domain/people/index.js'
import { answerOpened } from '../cookies.js'

/** A session, or what is still missing for one, which is in no cookie: it is good for a page that goes on at once. */
export function answerLoginResult(
  request: FastifyRequest,
  reply: FastifyReply,
  result: LoginResult,
  cookies: boolean,
): SecondFactorNeeded | ReturnType<typeof answerOpened> {
  if (!('second_factor' in result)) return answerOpened(request, reply, result, cookies)
  void reply.header('cache-control', 'no-store')
  return result
}
