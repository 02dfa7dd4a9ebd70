import { type IncomingMessage, ServerResponse } from 'node:http'
import { constants, type ServerHttp2Session } from 'node:http2'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { AppError, breakOff, errorText, type Logger } from '@wrenn/base'
import type { ApiKeys, KeyWatch } from '../domain/accounts/index.js'
import type { AccessLog } from '../domain/audit/index.js'
import type { Activity } from '../domain/capsules/index.js'
import { admit } from './access.js'
import { admitToAgent, requireClientRoute } from './agent-access.js'
import { allowPages, isPreflight, isSharedPreflight, sendPreflight } from './agent-cors.js'
import { sendFailure, sendWelcome } from './answers.js'
import type { ClientIp } from './client-ip.js'
import { type Destination, Destinations, isForAgent } from './destination.js'
import { forward } from './forward.js'
import { requireFraming } from './framing.js'
import { forwardStream, type Http2Request, refuseStream, serveHttp2 } from './http2.js'
import { recordAgentRequest } from './record-agent.js'
import type { Route } from './routes.js'
import { sandboxWords, type Wording } from './sandbox-words.js'
import { forwardUpgrade, refuseUpgrade } from './upgrade.js'
import { Upstream, type UpstreamDeps } from './upstream.js'

interface ProxyDeps extends UpstreamDeps {
  readonly apiKeys: Pick<ApiKeys, 'authenticate'>
  readonly keyWatch: Pick<KeyWatch, 'follow'>
  readonly accessLog: Pick<AccessLog, 'recorderFor'>
  readonly activity: Pick<Activity, 'open'>
  readonly logger: Logger
  readonly clientIp: ClientIp
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
  readonly #destinations: Destinations
  readonly #underWay = new Map<string, number>()
  readonly #upgraded = new Set<Socket>()
  readonly #http2 = new Set<ServerHttp2Session>()
  readonly #distrusted = new WeakSet<Socket>()

  constructor(deps: ProxyDeps) {
    this.#deps = deps
    this.#upstream = new Upstream(deps)
    this.#destinations = new Destinations(deps.domains)
  }

  /** Serves a request that is for a port of a capsule. @returns whether it is */
  request(request: IncomingMessage, response: ServerResponse): boolean {
    // Whatever follows a request that nobody should send is no request either; its answer ends the connection.
    if (this.#distrusted.has(request.socket)) return true
    if (response.socket === null) closeWith(request.socket, response)
    if (isSharedPreflight(request)) {
      sendPreflight(request, response)
      return true
    }
    return this.#take(request, {
      ends: response,
      serve: (destination) => forward(request, response, destination, this.#upstream),
      refuse: (error, words) => sendFailure(request, response, error, words),
    })
  }

  /** The same for one that wants another protocol, on a connection that Node has given away. */
  upgrade(request: IncomingMessage, client: Socket, head: Buffer): boolean {
    const isTaken = this.#take(request, {
      ends: client,
      serve: (destination) => forwardUpgrade(request, client, destination, this.#upstream),
      refuse: (error, words) => refuseUpgrade(request, client, error, words),
    })
    if (isTaken) {
      // At once: an end that follows would else be taken for the end of everything.
      if (head.length > 0 && !client.destroyed) client.unshift(head)
      this.#keep(client)
    }
    return isTaken
  }

  /** Its request is not kept with it: there are thousands of them. */
  #keep(client: Socket): void {
    this.#upgraded.add(client)
    client.once('close', () => this.#upgraded.delete(client))
  }

  /** Whether a connection by TLS to this name is for a port: then, and only then, it may agree on HTTP/2. */
  offersHttp2(serverName: string): boolean {
    return this.#destinations.isPort(serverName)
  }

  /** Serves the requests of a connection that has agreed on HTTP/2. */
  http2(client: TLSSocket): void {
    const session = serveHttp2(client, this.#upstream, (request) => {
      void this.#serveStream(request).catch(() => request.stream.destroy())
    })
    this.#http2.add(session)
    session.once('close', () => this.#http2.delete(session))
  }

  /** Ends what has no end of its own: connections that speak another protocol. Requests go on. */
  settle(): void {
    for (const client of this.#upgraded) breakOff(client)
    for (const session of this.#http2) session.close()
  }

  close(): void {
    this.settle()
    for (const session of this.#http2) session.destroy()
    this.#upstream.close()
  }

  #take(request: IncomingMessage, task: Task): boolean {
    try {
      const destination = this.#destinations.of(request)
      if (destination === undefined) return false
      requireFraming(request)
      task.ends.on('error', ignore) // `close` follows
      void this.#serve(request, destination, task)
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

  async #serve(request: IncomingMessage, destination: Destination, task: Task): Promise<void> {
    let isSandbox = isForAgent(destination)
    try {
      if (isSandbox && task.ends instanceof ServerResponse && isPreflight(request)) {
        sendPreflight(request, task.ends)
        return
      }
      if (isSandbox) requireClientRoute(request, destination)
      const route = await this.#deps.routes.get(destination.capsuleId)
      isSandbox ||= route.accessToken !== undefined
      await this.#admitted(request, destination, route, task)
    } catch (error) {
      this.#refuse(destination, task, AppError.from(error), isSandbox)
    }
  }

  async #admitted(
    request: IncomingMessage,
    destination: Destination,
    route: Route,
    { ends, serve }: Task,
  ): Promise<void> {
    const { apiKeys, keyWatch, accessLog } = this.#deps
    const judge = isForAgent(destination) ? admitToAgent : admit
    const { welcome, principal, path, withheld = [] } = await judge(request, destination, route, apiKeys)
    if (ends.destroyed) return
    if (welcome !== undefined && ends instanceof ServerResponse) {
      sendWelcome(ends, welcome)
      return
    }
    this.#begin(destination.capsuleId, ends)
    // Requests to services end by themselves; streams of the guest agent, and what speaks another protocol, need not.
    if (principal !== undefined && (isForAgent(destination) || !(ends instanceof ServerResponse))) {
      const followed = keyWatch.follow(principal, () => breakOff(request.socket))
      ends.once('close', () => followed[Symbol.dispose]())
    }
    if (!isForAgent(destination) || !(ends instanceof ServerResponse))
      return await serve({ ...destination, path, withheld })
    const ip = this.#deps.clientIp(request)
    const asked = { request, response: ends, capsule: route, path, principal, ip }
    const onAnswer = await recordAgentRequest(asked, accessLog)
    if (ends.destroyed) return
    await serve({ ...destination, path, withheld, onAnswer })
  }

  async #serveStream(request: Http2Request): Promise<void> {
    const { head, stream } = request
    let destination: Destination | undefined
    let isSandbox = false
    try {
      destination = this.#destinations.of(head)
      if (destination === undefined || isForAgent(destination)) {
        throw new AppError(
          'not_supported',
          'Only services in capsules are asked by HTTP/2; use HTTP/1.1 for everything else.',
        )
      }
      const { capsuleId } = destination
      const route = await this.#deps.routes.get(capsuleId)
      isSandbox = route.accessToken !== undefined
      const { principal, ...admission } = await admit(head, destination, route, this.#deps.apiKeys)
      if (stream.destroyed) return
      this.#begin(capsuleId, stream)
      if (principal !== undefined) {
        const followed = this.#deps.keyWatch.follow(principal, () => stream.close(constants.NGHTTP2_CANCEL))
        stream.once('close', () => followed[Symbol.dispose]())
      }
      await forwardStream(request, { ...destination, ...admission })
    } catch (thrown) {
      const error = AppError.from(thrown)
      if (destination !== undefined) this.#log(destination, error)
      const words = isSandbox && destination !== undefined ? sandboxWords(error, destination) : undefined
      refuseStream(request, error, words)
    }
  }

  /** @throws AppError `limit_exceeded` */
  #begin(capsuleId: string, ends: { once(event: 'close', listener: () => void): unknown }): void {
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

  /** @param isSandbox whether the capsule, or its guest agent, is asked by clients of the E2B wire */
  #refuse(destination: Destination, { refuse, ends }: Task, error: AppError, isSandbox: boolean): void {
    this.#log(destination, error)
    if (isForAgent(destination) && ends instanceof ServerResponse && !ends.headersSent) allowPages(ends)
    refuse(error, isSandbox ? sandboxWords(error, destination) : undefined)
  }

  #log({ capsuleId, port }: Destination, error: AppError): void {
    const { code, message } = error
    const level = code === 'internal' ? 'error' : 'debug'
    // The cause as text: as an object it may have bytes of the guest's answer, and those are not for logs.
    const cause = error.cause === undefined ? undefined : errorText(error.cause)
    this.#deps.logger[level]({ capsuleId, port, code, error: message, cause }, 'proxy.refused')
  }
}

/** Of each connection, the answers that wait behind others and are not closed. */
const unclosed = new WeakMap<Socket, Set<ServerResponse>>()

/** Node closes the answer that is being written when its connection ends, and forgets those that wait behind it. */
function closeWith(socket: Socket, response: ServerResponse): void {
  const waiting = unclosed.get(socket) ?? new Set()
  if (!unclosed.has(socket)) {
    unclosed.set(socket, waiting)
    socket.once('close', () => {
      for (const each of waiting) {
        each.destroy()
        each.emit('close')
      }
    })
  }
  waiting.add(response)
  response.once('close', () => waiting.delete(response))
}

function ignore(): void {}

interface Task {
  /** Closes when the client is served or has left. */
  readonly ends: ServerResponse | Socket
  readonly serve: (destination: Destination) => Promise<void>
  readonly refuse: (error: AppError, words?: Wording) => void
}
