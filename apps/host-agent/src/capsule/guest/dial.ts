import { request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import { GUEST_AGENT_PORT } from '@wrenn/protocol'
import { guestError, httpFailure } from './error.js'

/** By which the guest's agent knows its host. */
export const SECRET_HEADER = 'x-wrenn-secret'
/** A guest's kernel answers at once, unless its owner's firewall drops what comes from outside. */
const DIRECT_FIRST_MS = 2_000
const REFUSED = 502

/**
 * Connects to a port of the guest at `address`: straight, and where nobody listens there through the guest's agent, which
 * reaches what listens on the guest's 127.0.0.1 or ::1 only.
 * @throws AppError `port_closed`, `guest_unreachable`, `invalid_request` for the agent's own port
 */
export async function dialPort(address: string, secret: string, port: number, signal: AbortSignal): Promise<Socket> {
  if (port === GUEST_AGENT_PORT) throw new AppError('invalid_request', `Port ${port} is reserved in every capsule.`)
  const direct = await connectWithin(address, port, signal)
  if (direct !== undefined) return direct
  signal.throwIfAborted()
  return await throughAgent(address, secret, port, signal)
}

/** `undefined` when nobody takes the connection in time. */
async function connectWithin(host: string, port: number, signal: AbortSignal): Promise<Socket | undefined> {
  const socket = connect({ host, port, allowHalfOpen: true, noDelay: true })
  const late = new AbortController()
  const given = AbortSignal.any([signal, late.signal])
  const tooLate = delay(DIRECT_FIRST_MS, undefined, { signal: given }).then(() => undefined)
  // Refused: its agent may know better.
  const opened = await Promise.race([connected(socket), tooLate]).catch(() => undefined)
  late.abort()
  if (opened === undefined) socket.destroy()
  return opened
}

function connected(socket: Socket): Promise<Socket> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.off('error', reject)
      socket.on('error', () => {}) // whoever takes it hears `close`
      resolve(socket)
    })
  })
}

function throughAgent(address: string, secret: string, port: number, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const asked = request({
      host: address,
      port: GUEST_AGENT_PORT,
      path: `/connect/${port}`,
      headers: { connection: 'Upgrade', upgrade: 'tcp', [SECRET_HEADER]: secret },
      createConnection: () => connect({ host: address, port: GUEST_AGENT_PORT, allowHalfOpen: true, noDelay: true }),
      signal,
    })
    asked.once('error', (error) => reject(guestError(error)))
    asked.once('response', (answer) => {
      const closed = new AppError('port_closed', `Nobody listens on port ${port} of the capsule.`)
      void httpFailure(answer).then((failure) => reject(answer.statusCode === REFUSED ? closed : failure), reject)
    })
    asked.once('upgrade', (_answer, socket: Socket, head) => {
      socket.on('error', () => {}) // as above
      if (head.length > 0) socket.unshift(head)
      resolve(socket)
    })
    asked.end()
  })
}
