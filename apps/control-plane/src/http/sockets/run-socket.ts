import { AppError } from '@wrenn/base'
import { authFrameSchema, errorKind } from '@wrenn/protocol'
import type { FastifyRequest } from 'fastify'
import type { WebSocket } from 'ws'
import type { Principal } from '../../domain/accounts/index.js'
import type { RecordAccess } from '../../domain/audit/index.js'
import type { CapsuleRef } from '../../domain/capsules/index.js'
import type { SessionContext } from '../../domain/commands/index.js'
import { fromHostError } from '../../host/errors.js'
import { actorFor, admitted } from '../auth.js'
import type { Services } from '../context.js'
import { tellFailure } from '../traces.js'
import { Channel, type Message, parseFrame } from './channel.js'

const AUTH_WITHIN_MS = 5_000
const CLOSE_NORMAL = 1000
const CLOSE_POLICY = 1008
const CLOSE_FAILED = 1011

/** A client that is known, at a capsule that its team has. */
export interface Connection {
  readonly channel: Channel
  readonly capsule: CapsuleRef
  /** Of the capsule when the client came. */
  readonly generation: number
  /** Notes what the client starts. */
  readonly record: RecordAccess | undefined
}

interface SocketTask {
  /** Sent every 30 seconds beside the protocol's own ping. */
  readonly pingFrame?: object
  /** Whether the client also wants to hear the state of its capsule. */
  readonly states: boolean
  readonly run: (connection: Connection) => Promise<void>
}

/** The frame that tells of an error. */
export function errorFrame(error: AppError, fatal: boolean) {
  const { hint } = errorKind(error.code)
  return { type: 'error', data: error.message, code: error.code, fatal, ...(hint === undefined ? {} : { hint }) }
}

/**
 * Serves one WebSocket about a capsule: who is it, is there such a capsule, then the task. Whatever fails is told in an `error`
 * frame, then the socket closes. While it is open the capsule counts as in use.
 */
export function runSocket(
  socket: WebSocket,
  request: FastifyRequest,
  capsuleId: string,
  services: Services,
  task: SocketTask,
): void {
  const { pingFrame } = task
  const channel: Channel = new Channel(socket, {
    onPing: () => {
      if (pingFrame !== undefined) void channel.send(pingFrame)
    },
  })
  void serve(channel, request, capsuleId, services, task)
}

async function serve(
  channel: Channel,
  request: FastifyRequest,
  capsuleId: string,
  services: Services,
  task: SocketTask,
): Promise<void> {
  const { capsules, keyWatch, activity, wake, accessLog, logger } = services
  const startedAt = performance.now()
  let code = 'ok'
  try {
    const principal = request.principal ?? (await firstMessage(channel, request, services))
    const { teamId } = principal
    using _followed = keyWatch.follow(principal, (why) => {
      code = why.code
      channel.cutOff(errorFrame(why, true), CLOSE_POLICY, why.code)
    })
    const { id, generation } = await capsules.get(teamId, capsuleId)
    using _ = activity.open(id)
    if (task.states) void wake.follow(id, (state) => void channel.send({ type: 'state', state }), channel.signal)
    const record = await accessLog.recorderFor({ teamId, id }, actorFor(principal, request))
    await task.run({ channel, capsule: { teamId, id }, generation, record })
    channel.close(CLOSE_NORMAL, 'done')
  } catch (thrown) {
    if (!channel.signal.aborted) {
      const error = fromHostError(thrown)
      code = error.code
      tellFailure(request, code)
      await refuse(channel, error)
    } else if (code === 'ok') {
      code = 'client_closed'
    }
  }
  const ms = Math.round(performance.now() - startedAt)
  logger.info({ requestId: request.id, route: request.routeOptions.url, capsuleId, code, ms }, 'socket.closed')
}

async function refuse(channel: Channel, error: AppError): Promise<void> {
  await channel.send(errorFrame(error, true))
  channel.close(errorKind(error.code).status < 500 ? CLOSE_POLICY : CLOSE_FAILED, error.code)
}

async function firstMessage(channel: Channel, request: FastifyRequest, services: Services): Promise<Principal> {
  const timer = setTimeout(() => channel.close(CLOSE_POLICY, 'unauthorized'), AUTH_WITHIN_MS)
  try {
    const message = await channel.next()
    if (message === undefined) throw new AppError('unauthorized', 'No credentials came within 5 seconds.')
    const frame = parseFrame(message, authFrameSchema)
    return await admitted(request, frame.api_key ?? frame.token, services)
  } finally {
    clearTimeout(timer)
  }
}

/** Carries frames of the client to its process until the socket closes, in their order; a bad one is answered, not fatal. */
export async function readInput(channel: Channel, apply: (message: Message) => Promise<void>): Promise<void> {
  for (;;) {
    const message = await channel.next()
    if (message === undefined) return
    try {
      await apply(message)
    } catch (error) {
      if (!channel.signal.aborted) await channel.send(errorFrame(fromHostError(error), false))
    }
  }
}

/**
 * Makes a call that carries input. A capsule that sleeps wakes by `auto_resume`; without it the frame waits for the resume, and
 * those after it in the channel, which stops reading when it is full.
 */
export async function applyWhenAwake(
  { channel, capsule }: Connection,
  { wake, activity }: Services,
  call: () => Promise<unknown>,
): Promise<void> {
  await wake.attempt(capsule, call, { signal: channel.signal, asleep: 'hold' })
  activity.touch(capsule.id)
}

/** What a session of this connection needs. */
export function sessionContext(
  { channel, capsule, generation, record }: Connection,
  { host, wake }: Services,
): SessionContext {
  return { client: host.client, wake, capsule, generation, signal: channel.signal, record }
}
