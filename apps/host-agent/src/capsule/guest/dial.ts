import { request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import { CLIENT_LINE_PATH, CLIENT_LINE_PROTOCOL, GUEST_AGENT_PORT } from '@wrenn/protocol'
import { guestError } from './error.js'

/** By which the guest's agent knows its host. */
export const SECRET_HEADER = 'x-wrenn-secret'
/** A guest's kernel answers at once, unless its owner's firewall drops what comes from outside. */
const DIRECT_FIRST_MS = 2_000
const REFUSED = 502
const UNKNOWN = 404

/**
 * Connects to a port of the guest at `address`: straight, and where nobody listens there through the guest's agent, which
 * reaches what listens on the guest's 127.0.0.1 or ::1 only. The agent's own port leads to a line for clients.
 * @throws AppError `port_closed`, `guest_unreachable`, `guest_error` from an agent that knows no such lines
 */
export async function dialPort(address: string, secret: string, port: number, signal: AbortSignal): Promise<Socket> {
  if (port === GUEST_AGENT_PORT) return await clientLine(address, secret, signal)
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

async function throughAgent(address: string, secret: string, port: number, signal: AbortSignal): Promise<Socket> {
  const wish = { path: `/connect/${port}`, protocol: 'tcp', secret, signal }
  return await askAgent(address, wish, (status) => refusal(port, status))
}

/** The secret opens the line and is not heard on it: whatever a client sends, it cannot ask as the host. */
async function clientLine(address: string, secret: string, signal: AbortSignal): Promise<Socket> {
  const wish = { path: CLIENT_LINE_PATH, protocol: CLIENT_LINE_PROTOCOL, secret, signal }
  return await askAgent(address, wish, (status) => {
    if (status !== UNKNOWN) return refusal(GUEST_AGENT_PORT, status)
    const text = 'This capsule runs since before its guest agent served clients: make a new one to use it that way.'
    return new AppError('guest_error', text)
  })
}

/** In our words: those of the guest, whose owner may have replaced its agent, would be told to others and logged. */
function refusal(port: number, status: number): AppError {
  if (status === REFUSED) return new AppError('port_closed', `Nobody listens on port ${port} of the capsule.`)
  return new AppError('guest_error', `The guest agent answered with status ${status}.`)
}

interface AgentWish {
  readonly path: string
  readonly protocol: string
  readonly secret: string
  readonly signal: AbortSignal
}

/** Has the agent turn a connection into one of another protocol. `explain` says what the status of its refusal means. */
function askAgent(
  host: string,
  { path, protocol, secret, signal }: AgentWish,
  explain: (status: number) => AppError,
): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const asked = request({
      path,
      headers: { host, connection: 'Upgrade', upgrade: protocol, [SECRET_HEADER]: secret },
      createConnection: () => connect({ host, port: GUEST_AGENT_PORT, allowHalfOpen: true, noDelay: true }),
      signal,
    })
    asked.once('error', (error) => reject(guestError(error)))
    asked.once('response', (answer) => {
      answer.destroy()
      reject(explain(answer.statusCode ?? 500))
    })
    asked.once('upgrade', (_answer, socket: Socket, head) => {
      socket.on('error', () => {}) // as above
      if (head.length > 0) socket.unshift(head)
      resolve(socket)
    })
    asked.end()
  })
}
