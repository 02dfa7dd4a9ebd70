import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { AppError, breakOff, errorText, type Logger } from '@wrenn/base'
import type { ApiKeys, KeyWatch } from '../domain/accounts/index.js'
import type { Activity } from '../domain/capsules/index.js'
import { admit } from './access.js'
import { sendFailure, sendWelcome } from './answers.js'
import { type Destination, destinationOf } from './destination.js'
import { forward } from './forward.js'
import { requireFraming } from './framing.js'
import { forwardUpgrade, refuseUpgrade } from './upgrade.js'
import { Upstream, type UpstreamDeps } from './upstream.js'

interface ProxyDeps extends UpstreamDeps {
  readonly apiKeys: Pick<ApiKeys, 'authenticate'>
  readonly keyWatch: Pick<KeyWatch, 'follow'>
  readonly activity: Pick<Activity, 'open'>
  readonly logger: Logger
  /** Names below which every port of every capsule has one. */
  readonly domains: readonly string[]
  /** Requests and upgraded connections of one capsule at a time. */
  readonly maxConnections: number
}

/**
 * A URL for every port of a capsule: `{port}-{id}.{domain}`. Bytes pass as they come, in both directions at once; a request that is under way
 * is use of its capsule, and wakes it by `auto_resume`.
 */
export class PortProxy {
  readonly #deps: ProxyDeps
  readonly #upstream: Upstream
  readonly #underWay = new Map<string, number>()
  readonly #upgraded = new Set<Socket>()
  readonly #distrusted = new WeakSet<Socket>()

  constructor(deps: ProxyDeps) {
    this.#deps = deps
    this.#upstream = new Upstream(deps)
  }

  /** Serves a request that is for a port of a capsule. @returns whether it is */
  request(request: IncomingMessage, response: ServerResponse): boolean {
    // Whatever follows a request that nobody should send is no request either; its answer ends the connection.
    if (this.#distrusted.has(request.socket)) return true
    closeWith(request.socket, response)
    return this.#take(request, {
      ends: response,
      serve: (destination) => forward(request, response, destination, this.#upstream),
      refuse: (error) => sendFailure(request, response, error),
    })
  }

  /** The same for one that wants another protocol, on a connection that Node has given away. */
  upgrade(request: IncomingMessage, client: Socket, head: Buffer): boolean {
    const isTaken = this.#take(request, {
      ends: client,
      serve: (destination) => forwardUpgrade(request, client, destination, this.#upstream),
      refuse: (error) => refuseUpgrade(request, client, error),
    })
    if (isTaken) {
      // At once: an end that follows would else be taken for the end of everything.
      if (head.length > 0 && !client.destroyed) client.unshift(head)
      this.#upgraded.add(client)
      client.once('close', () => this.#upgraded.delete(client))
    }
    return isTaken
  }

  /** Ends what has no end of its own: connections that speak another protocol. Requests go on. */
  settle(): void {
    for (const client of this.#upgraded) breakOff(client)
  }

  close(): void {
    this.settle()
    this.#upstream.close()
  }

  #take(request: IncomingMessage, task: Task): boolean {
    try {
      const destination = destinationOf(request, this.#deps.domains)
      if (destination === undefined) return false
      requireFraming(request)
      task.ends.on('error', () => {}) // `close` follows
      void this.#serve(request, destination, task).catch((error: unknown) => this.#refuse(destination, task, error))
    } catch (thrown) {
      const error = AppError.from(thrown)
      // Their answer ends the connection; after the others it goes on. Of chunks it is not known how others would read them.
      if (error.code === 'invalid_request' || request.headers['transfer-encoding'] !== undefined) {
        this.#distrusted.add(request.socket)
        if (task.ends instanceof ServerResponse) task.ends.shouldKeepAlive = false
      }
      // The parser may be about to refuse it too, and has the first word.
      setImmediate(() => {
        if (request.socket.writable) task.refuse(error)
      })
    }
    return true
  }

  async #serve(request: IncomingMessage, destination: Destination, { ends, serve }: Task): Promise<void> {
    const { capsuleId } = destination
    const { routes, apiKeys, keyWatch } = this.#deps
    const { path, welcome, principal } = await admit(request, destination, await routes.get(capsuleId), apiKeys)
    if (ends.destroyed) return
    if (welcome !== undefined && ends instanceof ServerResponse) {
      sendWelcome(ends, welcome)
      return
    }
    this.#begin(capsuleId, ends)
    // Requests end by themselves, what speaks another protocol need not.
    if (principal !== undefined && !(ends instanceof ServerResponse)) {
      const followed = keyWatch.follow(principal, () => breakOff(ends))
      ends.once('close', () => followed[Symbol.dispose]())
    }
    await serve({ ...destination, path })
  }

  /** @throws AppError `limit_exceeded` */
  #begin(capsuleId: string, ends: Task['ends']): void {
    const { activity, maxConnections } = this.#deps
    const count = this.#underWay.get(capsuleId) ?? 0
    if (count >= maxConnections) {
      const message = `The capsule has ${maxConnections} connections through this proxy (WRENN_PROXY_MAX_CONNECTIONS).`
      throw new AppError('limit_exceeded', message, { details: { retryAfterSec: 1 } })
    }
    this.#underWay.set(capsuleId, count + 1)
    const use = activity.open(capsuleId)
    ends.once('close', () => {
      use[Symbol.dispose]()
      const left = (this.#underWay.get(capsuleId) ?? 1) - 1
      if (left > 0) this.#underWay.set(capsuleId, left)
      else this.#underWay.delete(capsuleId)
    })
  }

  #refuse({ capsuleId, port }: Destination, { refuse }: Task, thrown: unknown): void {
    const error = AppError.from(thrown)
    const { code, message } = error
    const level = code === 'internal' ? 'error' : 'debug'
    // The cause as text: as an object it may have bytes of the guest's answer, and those are not for logs.
    const cause = error.cause === undefined ? undefined : errorText(error.cause)
    this.#deps.logger[level]({ capsuleId, port, code, error: message, cause }, 'proxy.refused')
    refuse(error)
  }
}

/** Node closes the answer that is being written when its connection ends, and forgets those that wait behind it. */
function closeWith(socket: Socket, response: ServerResponse): void {
  const onGone = (): void => {
    response.destroy()
    response.emit('close')
  }
  socket.setMaxListeners(0) // one for each request that waits
  socket.once('close', onGone)
  response.once('close', () => socket.off('close', onGone))
}

interface Task {
  /** Closes when the client is served or has left. */
  readonly ends: ServerResponse | Socket
  readonly serve: (destination: Destination) => Promise<void>
  readonly refuse: (error: AppError) => void
}
