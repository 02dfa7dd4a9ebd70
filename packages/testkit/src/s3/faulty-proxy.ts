import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'

/**
 * What befalls an answer: `unavailable` is a 503 in its place; `stall`, `reset` and `truncate` come after half of its body, or in place of an
 * answer that has none (nothing more, a connection that is reset, one that is ended); `shorten` and `flip` give a whole answer that is another one: of half of the body, or with a
 * bit changed. `garble` changes a bit of what is sent to the server.
 */
export type S3Fault = 'unavailable' | 'garble' | 'stall' | 'reset' | 'truncate' | 'shorten' | 'flip'

/** A request that a fault may be chosen for; `at` counts from 0. */
export interface S3Request {
  readonly method: string
  /** Without the query. */
  readonly path: string
  readonly at: number
}

const SLOW_DOWN = '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please slow down.</Message></Error>'

/** Stands before a real server of objects and spoils what it is told to. */
export class FaultyProxy implements AsyncDisposable {
  readonly #target: URL
  readonly #server: Server
  /** All that came. */
  readonly requests: S3Request[] = []
  /** Chooses what befalls a request; nothing by default. */
  choose: (request: S3Request) => S3Fault | undefined = () => undefined

  private constructor(target: string) {
    this.#target = new URL(target)
    this.#server = createServer((incoming, outgoing) => {
      this.#serve(incoming, outgoing).catch(() => outgoing.destroy())
    })
  }

  /** @param target the real server's address */
  static async start(target: string): Promise<FaultyProxy> {
    const proxy = new FaultyProxy(target)
    proxy.#server.listen(0, '127.0.0.1')
    await once(proxy.#server, 'listening')
    return proxy
  }

  get endpoint(): string {
    const { port } = this.#server.address() as AddressInfo
    return `http://127.0.0.1:${port}`
  }

  /** Requests of one method so far, by what their paths have in them. */
  count(method: string, part = ''): number {
    return this.requests.filter((each) => each.method === method && each.path.includes(part)).length
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close()
    this.#server.closeAllConnections()
    await once(this.#server, 'close')
  }

  async #serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const [path = ''] = (incoming.url ?? '').split('?')
    const seen = { method: incoming.method ?? '', path, at: this.requests.length }
    this.requests.push(seen)
    const fault = this.choose(seen)
    const sent = await buffer(incoming)
    if (fault === 'unavailable') {
      outgoing.writeHead(503, { 'content-type': 'application/xml', 'content-length': SLOW_DOWN.length }).end(SLOW_DOWN)
      return
    }
    const answer = await this.#ask(incoming, fault === 'garble' ? flipped(sent) : sent)
    const body = await buffer(answer)
    const headers = { ...answer.headers }
    delete headers['transfer-encoding']
    if (incoming.method !== 'HEAD') headers['content-length'] = String(body.length)
    spoil(fault, body, outgoing, (length) => {
      if (length !== undefined) headers['content-length'] = String(length)
      outgoing.writeHead(answer.statusCode ?? 502, headers)
    })
  }

  /** With the same headers: the signature is of the name that the client has asked. */
  async #ask(incoming: IncomingMessage, sent: Buffer): Promise<IncomingMessage> {
    const { hostname: host, port } = this.#target
    const { method, url: path, headers } = incoming
    const asked = request({ host, port, method, path, headers })
    asked.on('error', () => {}) // before the answer it is thrown below, later the answer's body tells
    asked.end(sent)
    const [answer] = await once(asked, 'response')
    return answer
  }
}

function spoil(
  fault: S3Fault | undefined,
  body: Buffer,
  outgoing: ServerResponse,
  head: (length?: number) => void,
): void {
  const half = body.subarray(0, Math.floor(body.length / 2))
  switch (fault) {
    case 'shorten':
      head(half.length)
      outgoing.end(half)
      return
    case 'flip':
      head()
      outgoing.end(flipped(body))
      return
    case 'stall':
    case 'reset':
    case 'truncate': {
      const ends = {
        stall: () => {},
        reset: () => outgoing.socket?.resetAndDestroy(),
        truncate: () => outgoing.socket?.end(),
      }
      if (half.length === 0) {
        ends[fault]()
        return
      }
      head()
      outgoing.write(half, () => ends[fault]())
      return
    }
    default:
      head()
      outgoing.end(body)
  }
}

function flipped(body: Buffer): Buffer {
  const copy = Buffer.from(body)
  if (copy.length === 0) return copy
  const at = Math.floor(copy.length / 2)
  copy.writeUInt8(copy.readUInt8(at) ^ 1, at)
  return copy
}
