import { connect, isIPv4, type Socket } from 'node:net'
import { AppError } from '@wrenn/base'
import { GUEST_AGENT_PORT, LEASE_PROTOCOL, leasePath, type TunnelTarget } from '@wrenn/protocol'
import { GuestLease } from './guest-lease.js'
import { askHost, hostAway, type OpenTunnel } from './tunnel.js'

/** A guest's kernel answers at once, unless its owner's firewall drops what comes from outside. */
const STRAIGHT_FIRST_MS = 2_000
const ASK_WITHIN_MS = 30_000
const LOOK_EVERY_MS = 1_000
/** A lease that nobody uses ends: each is a connection to the host agent. */
const IDLE_MS = 10_000
/** A host agent of an earlier version has none; it may be replaced. */
const ASK_AGAIN_AFTER_MS = 60_000
const MAX_ADDRESS_BYTES = 64

/**
 * Connects straight to guests of this machine, each of which the host agent leases: without a process between, a connection costs what it would cost
 * anybody here. What is not reached that way (a service that listens on the guest's loopback, the guest agent) is reached by tunnels.
 */
export class GuestLeases {
  readonly #socketPath: string
  readonly #tunnels: OpenTunnel
  readonly #leases = new Map<string, Promise<GuestLease>>()
  /** Those of them that are there. */
  readonly #open = new Set<GuestLease>()
  /** When there were none last; milliseconds as of `performance.now()`. */
  #unknownAtMs = Number.NEGATIVE_INFINITY
  #timer: NodeJS.Timeout | undefined

  /** @param socketPath of the host agent */
  constructor(socketPath: string, tunnels: OpenTunnel) {
    this.#socketPath = socketPath
    this.#tunnels = tunnels
  }

  readonly open: OpenTunnel = async (target, signal) =>
    (await this.#straight(target, signal)) ?? (await this.#tunnels(target, signal))

  close(): void {
    clearInterval(this.#timer)
    for (const lease of this.#open) lease.end()
  }

  async #straight({ capsuleId, port }: TunnelTarget, signal: AbortSignal): Promise<Socket | undefined> {
    if (port === GUEST_AGENT_PORT || performance.now() - this.#unknownAtMs < ASK_AGAIN_AFTER_MS) return undefined
    const lease = await this.#leaseOf(capsuleId, signal)
    if (lease === undefined || lease.slowPorts.has(port)) return undefined
    const socket = await connectStraight(lease, port, signal)
    if (socket === undefined) return undefined
    try {
      // Whoever sends bytes before this is answered would send them to whom the address was given since.
      if (await unlessAborted(lease.isSame(), signal)) return socket
    } catch (error) {
      socket.destroy()
      throw error
    }
    socket.destroy()
    return undefined
  }

  /** @throws AppError as a tunnel to the capsule */
  async #leaseOf(capsuleId: string, signal: AbortSignal): Promise<GuestLease | undefined> {
    try {
      return await unlessAborted(this.#leases.get(capsuleId) ?? this.#askOnce(capsuleId), signal)
    } catch (error) {
      if (!AppError.is(error, 'not_found')) throw error
      this.#unknownAtMs = performance.now()
      return undefined
    }
  }

  /** A refusal is for those who wait for it alone, and is forgotten when all of them have left. */
  #askOnce(capsuleId: string): Promise<GuestLease> {
    const asked = this.#ask(capsuleId)
    this.#leases.set(capsuleId, asked)
    asked.catch(() => {
      if (this.#leases.get(capsuleId) === asked) this.#leases.delete(capsuleId)
    })
    return asked
  }

  async #ask(capsuleId: string): Promise<GuestLease> {
    const path = this.#socketPath
    const late = AbortSignal.timeout(ASK_WITHIN_MS)
    const line = await askHost(() => connect({ path, allowHalfOpen: true }), leasePath(capsuleId), LEASE_PROTOCOL, late)
    const giveUp = (): void => void line.destroy()
    late.addEventListener('abort', giveUp)
    const address = await readAddress(line)
    late.removeEventListener('abort', giveUp)
    const lease = new GuestLease(address, line, () => {
      this.#leases.delete(capsuleId)
      this.#open.delete(lease)
    })
    this.#open.add(lease)
    this.#timer ??= setInterval(this.#look, LOOK_EVERY_MS).unref()
    return lease
  }

  readonly #look = (): void => {
    for (const lease of this.#open) lease.look(IDLE_MS)
    if (this.#open.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}

/** The host agent's first line. @throws AppError `host_unavailable` */
async function readAddress(line: Socket): Promise<string> {
  let text = ''
  while (!text.includes('\n')) {
    const more: Buffer | undefined = await new Promise((resolve) => {
      const settle = (bytes?: Buffer): void => {
        line.off('data', settle).off('end', settle).off('close', settle)
        line.pause()
        resolve(bytes)
      }
      line.on('data', settle).on('end', settle).on('close', settle)
    })
    text += more?.toString('latin1') ?? ''
    if (more === undefined || text.length > MAX_ADDRESS_BYTES) break
  }
  const address = text.slice(0, -1)
  if (isIPv4(address) && text.endsWith('\n')) return address
  line.destroy()
  throw hostAway(new Error('the line of a lease ended before it had begun'))
}

/** `undefined` when nobody takes the connection in time, or the guest has ended. @throws the reason of `signal` */
async function connectStraight(lease: GuestLease, port: number, signal: AbortSignal): Promise<Socket | undefined> {
  signal.throwIfAborted()
  const socket = connect({ host: lease.address, port, allowHalfOpen: true, noDelay: true })
  socket.on('error', () => {}) // whoever takes it hears `close`
  lease.bind(socket)
  const giveUp = (): void => void socket.destroy()
  const timer = setTimeout(() => {
    lease.slowPorts.add(port)
    giveUp()
  }, STRAIGHT_FIRST_MS)
  signal.addEventListener('abort', giveUp)
  const isConnected = await new Promise<boolean>((resolve) => {
    const settle = (): void => {
      socket.off('connect', settle).off('close', settle)
      resolve(!socket.destroyed)
    }
    socket.on('connect', settle).on('close', settle)
  })
  clearTimeout(timer)
  signal.removeEventListener('abort', giveUp)
  signal.throwIfAborted()
  return isConnected ? socket : undefined
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const leave = (): void => reject(signal.reason)
    if (signal.aborted) leave()
    else signal.addEventListener('abort', leave)
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave))
  })
}
