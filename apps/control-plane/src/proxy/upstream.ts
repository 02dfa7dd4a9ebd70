import { Agent, type ClientRequestArgs } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { AppError } from '@wrenn/base'
import type { TunnelTarget } from '@wrenn/protocol'
import type { Wake } from '../domain/capsules/index.js'
import type { OpenTunnel } from '../host/tunnel.js'
import { findAnyCapsule } from '../store/capsules.js'
import type { Db } from '../store/database.js'
import type { CapsuleRow } from '../store/schema.js'
import type { Routes } from './routes.js'
import { IDLE_CONNECTION_MS, IDLE_CONNECTIONS, ServiceConnections } from './service-connections.js'
import { Turns } from './turns.js'

/** A service with a short queue for new connections is not to lose some of a storm. */
const DIALS_AT_ONCE = 32
const DIAL_WITHIN_MS = 30_000

export interface UpstreamDeps {
  readonly db: Db
  readonly wake: Pick<Wake, 'use'>
  readonly routes: Routes
  readonly openTunnel: OpenTunnel
}

/** Connections to ports of capsules: wakes the capsule, waits its turn, and says what is wrong in the words of the answers. */
export class Upstream {
  readonly #deps: UpstreamDeps
  readonly #turns = new Turns(DIALS_AT_ONCE)
  /** Keeps connections for the next request to the same port. They end with the guest, so they lead to no other. */
  readonly agent: Agent
  readonly kept: ServiceConnections

  constructor(deps: UpstreamDeps) {
    this.#deps = deps
    this.kept = new ServiceConnections((target, left) => this.connect(target, left))
    this.agent = new TunnelAgent((target, left) => this.connect(target, left))
  }

  /**
   * A new connection; whoever asked owns it. Who leaves by `left` before its turn wakes nothing.
   * @throws AppError `port_closed`, `invalid_state` (it sleeps), `capsule_ended`, `capsule_not_found`, `guest_unreachable`, `host_unavailable`
   */
  async connect(target: TunnelTarget, left?: AbortSignal): Promise<Socket> {
    try {
      const ref = await this.#deps.routes.get(target.capsuleId)
      const dial = () => this.#deps.wake.use(ref, () => this.#dial(target))
      return await this.#turns.take(`${target.capsuleId}:${target.port}`, dial, left)
    } catch (error) {
      throw await this.#explained(target.capsuleId, error)
    }
  }

  /** Its timer ends with it: there are thousands a second. */
  async #dial(target: TunnelTarget): Promise<Socket> {
    const late = new AbortController()
    const error = new AppError('guest_unreachable', `The service did not take the connection in ${DIAL_WITHIN_MS} ms.`)
    const timer = setTimeout(() => late.abort(error), DIAL_WITHIN_MS)
    try {
      return await this.#deps.openTunnel(target, late.signal)
    } finally {
      clearTimeout(timer)
    }
  }

  close(): void {
    this.agent.destroy()
    this.kept.close()
  }

  /** What its row says counts for more than how its host refused. */
  async #explained(id: string, thrown: unknown): Promise<AppError> {
    const error = AppError.from(thrown)
    if (!AppError.is(error, 'invalid_state', 'guest_died', 'capsule_not_found', 'host_unavailable')) return error
    const row = await findAnyCapsule(this.#deps.db, id)
    if (row === undefined) return new AppError('capsule_not_found', 'There is no such capsule.')
    if (row.state === 'missing') return new AppError('host_unavailable', 'The host of the capsule does not answer.')
    return hasEnded(row) ? new AppError('capsule_ended', endOf(row)) : error
  }
}

function hasEnded({ state }: CapsuleRow): boolean {
  return state === 'stopping' || state === 'stopped' || state === 'error'
}

function endOf({ state, exit }: CapsuleRow): string {
  return state === 'error' && exit !== null ? `The capsule has ended: ${exit.message}` : 'The capsule was destroyed.'
}

type Connected = (error: Error | null, stream: Duplex) => void
type Connect = (target: TunnelTarget, left: AbortSignal | undefined) => Promise<Socket>

interface TunnelArgs extends ClientRequestArgs {
  /** Is aborted when whoever asks leaves; made only for a new connection. Node keeps its own `signal` from agents. */
  readonly leaving?: () => AbortSignal
}

/** `host` and `port` of a request are a capsule's id and a port of it. */
class TunnelAgent extends Agent {
  readonly #connect: Connect

  constructor(connect: Connect) {
    super({ keepAlive: true, maxFreeSockets: IDLE_CONNECTIONS, timeout: IDLE_CONNECTION_MS, scheduling: 'lifo' })
    this.#connect = connect
  }

  override createConnection({ host, port, leaving }: TunnelArgs, connected?: Connected): undefined {
    this.#connect({ capsuleId: String(host), port: Number(port) }, leaving?.()).then(
      (socket) => {
        // A service that ends an idle connection has left it.
        socket.allowHalfOpen = false
        connected?.(null, socket)
      },
      // Node looks at the stream only when there is no error.
      (error: unknown) => (connected as ((error: Error) => void) | undefined)?.(AppError.from(error)),
    )
  }
}
