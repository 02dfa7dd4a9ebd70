import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { Code, ConnectError, type ConnectRouter } from '@connectrpc/connect'
import { connectNodeAdapter } from '@connectrpc/connect-node'
import { AppError } from '@wrenn/base'
import { CLIENT_LINE_PATH, CLIENT_LINE_PROTOCOL } from '@wrenn/protocol'
import { type ConnectRequest, Process, type ProcessEvent, type StartRequest } from '@wrenn/protocol/guest'
import { answerTunnel, refuseTunnel } from './fake-tunnel.js'

interface Session {
  readonly pid: number
  readonly chunks: { readonly offset: bigint; readonly bytes: Uint8Array }[]
  size: bigint
  end: { readonly exitCode: number } | undefined
  changed: PromiseWithResolversLike
}

interface PromiseWithResolversLike {
  readonly promise: Promise<void>
  readonly resolve: () => void
}

function signal(): PromiseWithResolversLike {
  let resolve = (): void => {}
  const promise = new Promise<void>((done) => {
    resolve = done
  })
  return { promise, resolve: () => resolve() }
}

type EventInit = Pick<ProcessEvent, 'event'>['event']

/**
 * The part of a guest agent that the host agent's domain needs, on a loopback address: health, identity, and processes with
 * resumable output. Commands run on this machine, but for what changes whom it trusts: only for tests.
 */
export class FakeGuest implements AsyncDisposable {
  /** Bodies of every accepted POST /init. */
  readonly identities: Record<string, unknown>[] = []
  /** Certificates that it was made to trust. */
  readonly trusted: string[] = []
  secret: string | undefined
  /** The next POST /init is carried out, but its answer is lost. */
  loseNextInit = false
  /** So long the next POST /init is on its way. */
  nextInitLateMs = 0
  /** Every POST /init waits for ever. */
  hangInits = false
  /** Connections break as soon as they are made, as those to an agent that is killed again and again. */
  resetsConnections = false
  /** Whether it has lines for clients; agents of before had none. */
  knowsClients = true
  #stalls = 0
  #muted: PromiseWithResolversLike | undefined
  readonly #sessions = new Map<number, Session>()
  readonly #sockets = new Set<Socket>()
  readonly #server
  readonly #lines = createServer(({ method, url, headers }, response) => {
    response.end(JSON.stringify({ method, url, headers }))
  })
  readonly #closed: Promise<unknown>

  constructor() {
    const rpc = connectNodeAdapter({ routes: (router) => this.#routes(router) })
    this.#server = createServer((request, response) => {
      if (this.#muted !== undefined) void this.#muted.promise.then(() => serve(request, response))
      else serve(request, response)
    })
    const serve = (request: IncomingMessage, response: ServerResponse): void => {
      if (request.url === '/health') response.writeHead(204).end()
      else if (this.secret !== undefined && request.headers['x-wrenn-secret'] !== this.secret)
        response.writeHead(401).end()
      else if (request.url === '/init') void this.#init(request, response)
      else if (request.url === '/envs') response.end(JSON.stringify(this.#envs()))
      else if (request.url === '/quiesce') response.end(JSON.stringify({ flushed: true, synced: true }))
      else rpc(request, response)
    }
    this.#server.on('upgrade', (request, socket: Socket) => {
      if (this.#muted !== undefined) return
      const port = Number(/^\/connect\/(\d+)$/.exec(request.url ?? '')?.[1])
      if (!Number.isNaN(port)) void answerTunnel(socket, 'tcp', port)
      else this.#openLine(request, socket)
    })
    this.#closed = once(this.#server, 'close')
    this.#server.on('connection', (socket) => {
      if (this.resetsConnections) socket.resetAndDestroy()
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
  }

  /** What comes over a line for clients is answered by what it was. */
  #openLine(request: IncomingMessage, socket: Socket): void {
    if (request.url !== CLIENT_LINE_PATH || !this.knowsClients) {
      refuseTunnel(socket, new AppError('not_found', 'No such upgrade.'))
      return
    }
    if (this.secret !== undefined && request.headers['x-wrenn-secret'] !== this.secret) {
      refuseTunnel(socket, new AppError('unauthorized', 'Not the secret.'))
      return
    }
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${CLIENT_LINE_PROTOCOL}\r\n\r\n`)
    this.#lines.emit('connection', socket)
  }

  async listen(address: string, port: number): Promise<void> {
    this.#server.listen(port, address)
    await once(this.#server, 'listening')
  }

  /** Breaks every connection; processes and their output stay. */
  dropConnections(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy()
  }

  /** The agent was killed inside the guest and started anew: it knows no process of the one before. */
  startAnew(): void {
    this.#sessions.clear()
    this.dropConnections()
  }

  /** From now on the agent takes connections and requests and answers none, as one that was stopped; its processes go on. */
  mute(): void {
    this.#muted ??= signal()
  }

  /** Answers what came meanwhile, and everything after it. */
  unmute(): void {
    this.#muted?.resolve()
    this.#muted = undefined
  }

  /** Streams that are open say nothing more, as over a connection whose packets are lost; new ones work. */
  stallStreams(): void {
    this.#stalls++
  }

  /** Gives its address up; connections that are in use stay. */
  async stopListening(): Promise<void> {
    if (this.#server.listening) this.#server.close()
    await new Promise((resolve) => setImmediate(resolve))
  }

  /** Ends the agent: nobody listens at its address any more, and its connections are gone. */
  async close(): Promise<void> {
    if (this.#server.listening) this.#server.close()
    this.dropConnections()
    await this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
    this.unmute()
  }

  async #init(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = ''
    for await (const chunk of request) body += chunk
    if (this.hangInits) return
    const identity: Record<string, unknown> = JSON.parse(body)
    this.identities.push(identity)
    if (typeof identity.secret === 'string') this.secret = identity.secret
    if (this.loseNextInit) {
      this.loseNextInit = false
      request.socket.resetAndDestroy()
      return
    }
    const lateMs = this.nextInitLateMs
    this.nextInitLateMs = 0
    await delay(lateMs)
    const answer = JSON.stringify({ agentVersion: 'fake', tookMs: 0 })
    response.writeHead(200, { 'content-type': 'application/json' }).end(answer)
  }

  #routes(router: ConnectRouter): void {
    const guest = this
    router.service(Process, {
      async *start(request: StartRequest, context) {
        const session = request.tag === 'wrenn-edge' ? guest.#trust(request) : guest.#spawn(request)
        for await (const event of guest.#follow(session, 0n, context.signal)) yield { event: { event } }
      },
      async *connect(request: ConnectRequest, context) {
        const selector = request.process?.selector
        const session = selector?.case === 'pid' ? guest.#sessions.get(selector.value) : undefined
        if (session === undefined) throw new ConnectError('no such process', Code.NotFound)
        for await (const event of guest.#follow(session, request.fromOffset ?? session.size, context.signal)) {
          yield { event: { event } }
        }
      },
    })
  }

  #envs(): unknown {
    return this.identities.findLast(({ envs }) => envs !== undefined)?.envs ?? {}
  }

  #trust(request: StartRequest): Session {
    this.trusted.push(request.process?.envs.CERTIFICATE ?? '')
    return { pid: 1, chunks: [], size: 0n, end: { exitCode: 0 }, changed: signal() }
  }

  #spawn(request: StartRequest): Session {
    const child = spawn(request.process?.cmd ?? '/bin/false', request.process?.args ?? [], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const session: Session = { pid: child.pid ?? 0, chunks: [], size: 0n, end: undefined, changed: signal() }
    const changed = (): void => {
      const before = session.changed
      session.changed = signal()
      before.resolve()
    }
    child.stdout.on('data', (bytes: Buffer) => {
      session.chunks.push({ offset: session.size, bytes })
      session.size += BigInt(bytes.length)
      changed()
    })
    child.once('close', (code) => {
      session.end = { exitCode: code ?? -1 }
      changed()
    })
    this.#sessions.set(session.pid, session)
    return session
  }

  async *#follow(session: Session, from: bigint, aborted: AbortSignal): AsyncGenerator<EventInit> {
    yield { case: 'start', value: { $typeName: 'process.ProcessEvent.StartEvent', pid: session.pid, offset: from } }
    let next = 0
    const stalls = this.#stalls
    while (!aborted.aborted) {
      await this.#muted?.promise
      if (this.#stalls !== stalls) {
        return await new Promise<void>((resolve) => aborted.addEventListener('abort', () => resolve()))
      }
      const { changed } = session
      for (let chunk = session.chunks[next]; chunk !== undefined; chunk = session.chunks[++next]) {
        const skip = from > chunk.offset ? Number(from - chunk.offset) : 0
        if (skip >= chunk.bytes.length) continue
        const output = { case: 'stdout', value: chunk.bytes.subarray(skip) } as const
        const offset = chunk.offset + BigInt(skip)
        yield { case: 'data', value: { $typeName: 'process.ProcessEvent.DataEvent', output, offset } }
      }
      if (session.end !== undefined) {
        const end = {
          exitCode: session.end.exitCode,
          exited: true,
          status: '',
          offset: session.size,
          timedOut: false,
          oomKilled: false,
        }
        yield { case: 'end', value: { $typeName: 'process.ProcessEvent.EndEvent', ...end } }
        return
      }
      await changed.promise
    }
  }
}
