import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import type {
  DescMessage,
  DescMethod,
  DescMethodClientStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from '@bufbuild/protobuf'
import { AppError, type Logger } from '@wrenn/base'
import type { Caller } from '../identity/identity.js'
import { type Codec, jsonCodec, protoCodec } from './codec.js'
import { EventStream } from './event-stream.js'
import { FLAG_COMPRESSED, FLAG_END, type Frame, readFrames } from './frames.js'
import { Preencoded } from './preencoded.js'
import { unaryError } from './rpc-error.js'

const MAX_UNARY_BYTES = 64 * 1024 * 1024

/** What a handler may know of the call around its message. */
export interface RpcCall {
  readonly headers: IncomingHttpHeaders
  readonly caller: Caller
  /** From `Connect-Timeout-Ms`; absent when the client set no deadline. */
  readonly timeoutMs: number | undefined
}

type UnaryAnswer<O extends DescMessage> = MessageInitShape<O> | Preencoded<MessageInitShape<O>>

type Handler<Method> =
  Method extends DescMethodUnary<infer I, infer O>
    ? (request: MessageShape<I>, call: RpcCall) => UnaryAnswer<O> | Promise<UnaryAnswer<O>>
    : Method extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageShape<I>, call: RpcCall, events: EventStream<O>) => Promise<void>
      : Method extends DescMethodClientStreaming<infer I, infer O>
        ? (requests: AsyncIterable<MessageShape<I>>, call: RpcCall) => Promise<MessageInitShape<O>>
        : never

/** One function per method of a service: unary ones return the answer, streaming ones send events until they return. */
export type ServiceHandlers<Service extends DescService> = {
  readonly [Name in keyof Service['method']]: Handler<Service['method'][Name]>
}

type Answer = (request: IncomingMessage, response: ServerResponse, codec: Codec, call: RpcCall) => Promise<void>

interface Route {
  readonly streaming: boolean
  readonly answer: Answer
}

/**
 * A Connect server (https://connectrpc.com/docs/protocol) for HTTP/1.1: unary, server-streaming and client-streaming
 * calls in JSON and binary. It is ours because the general library costs several times more per call, which an emulated CPU
 * without a JIT turns into milliseconds of every exec.
 */
export class RpcRouter {
  readonly #routes = new Map<string, Route>()
  readonly #log: Logger

  constructor(log: Logger) {
    this.#log = log
  }

  /** Every method of the service must have a handler. @throws Error, a bug of ours, when one has none */
  add<Service extends DescService>(service: Service, handlers: ServiceHandlers<Service>): this {
    const byName: Readonly<Record<string, (...args: never[]) => unknown>> = handlers
    for (const method of service.methods) {
      const handler = byName[method.localName]
      if (handler === undefined) throw new Error(`No handler for ${service.typeName}.${method.name}`)
      this.#routes.set(`/${service.typeName}/${method.name}`, this.#route(method, handler))
    }
    return this
  }

  has(path: string): boolean {
    return this.#routes.has(path)
  }

  /** Answers a request, with an error of the protocol where it must. */
  async handle(path: string, request: IncomingMessage, response: ServerResponse, caller: Caller): Promise<void> {
    const route = this.#routes.get(path)
    if (route === undefined) return sendUnaryError(response, new AppError('method_not_allowed', `No RPC ${path}.`))
    const codec = codecOf(request.headers['content-type'], route.streaming)
    if (request.method !== 'POST' || codec === undefined) {
      response.writeHead(request.method === 'POST' ? 415 : 405, { connection: 'close' }).end()
      return
    }
    const { headers } = request
    const call = { headers, caller, timeoutMs: timeoutOf(headers['connect-timeout-ms']) }
    await route.answer(request, response, codec, call)
  }

  #route(method: DescMethod, handler: (...args: never[]) => unknown): Route {
    // `add` checks by its type that every handler fits its method; the map of routes forgets which is which.
    const run = handler as (...args: unknown[]) => unknown
    switch (method.methodKind) {
      case 'unary':
        return { streaming: false, answer: this.#unary(method, run) }
      case 'server_streaming':
        return { streaming: true, answer: this.#serverStream(method, run) }
      case 'client_streaming':
        return { streaming: true, answer: this.#clientStream(method, run) }
      default:
        throw new Error(`${method.name}: bidirectional streams do not exist over HTTP/1.1`)
    }
  }

  #unary(method: DescMethod, run: (...args: unknown[]) => unknown): Answer {
    return async (request, response, codec, call) => {
      try {
        const body = await readBody(request)
        const result = await run(codec.decode(method.input, body), call)
        const payload = encodeAnswer(method.output, codec, result)
        response.writeHead(200, { 'content-type': `application/${codec.name}`, 'content-length': payload.length })
        response.end(payload)
      } catch (error) {
        this.#report(method, error)
        sendUnaryError(response, error)
      }
    }
  }

  #serverStream(method: DescMethod, run: (...args: unknown[]) => unknown): Answer {
    return async (request, response, codec, call) => {
      const events = new EventStream(method.output, codec, response)
      try {
        await run(codec.decode(method.input, await readOneFrame(request)), call, events)
        events.end()
      } catch (error) {
        this.#report(method, error)
        events.end(error)
      }
    }
  }

  #clientStream(method: DescMethod, run: (...args: unknown[]) => unknown): Answer {
    return async (request, response, codec, call) => {
      const events = new EventStream(method.output, codec, response)
      try {
        const result = await run(decodeFrames(request, codec, method.input), call)
        await events.send(result as MessageInitShape<DescMessage>)
        events.end()
      } catch (error) {
        this.#report(method, error)
        events.end(error)
      }
    }
  }

  #report(method: DescMethod, error: unknown): void {
    if (!AppError.is(error)) this.#log.error({ method: method.name, error: String(error) }, 'rpc.failed')
  }
}

function encodeAnswer(schema: DescMessage, codec: Codec, result: unknown): Uint8Array {
  if (!(result instanceof Preencoded)) return codec.encode(schema, result as MessageInitShape<DescMessage>)
  return codec.name === 'proto' ? result.toBinary() : codec.encode(schema, result.message)
}

function codecOf(contentType: string | undefined, streaming: boolean): Codec | undefined {
  const type = contentType?.split(';', 1)[0]?.trim().toLowerCase()
  if (type === (streaming ? 'application/connect+json' : 'application/json')) return jsonCodec
  if (type === (streaming ? 'application/connect+proto' : 'application/proto')) return protoCodec
  return undefined
}

function timeoutOf(header: string | string[] | undefined): number | undefined {
  const timeoutMs = Number(header)
  return Number.isInteger(timeoutMs) && timeoutMs > 0 ? timeoutMs : undefined
}

function sendUnaryError(response: ServerResponse, thrown: unknown): void {
  if (response.headersSent || response.destroyed) return
  const error = unaryError(thrown)
  response.writeHead(error.status, error.headers).end(error.body)
}

/** The default iterator would destroy the connection, and the answer with it, when a reader stops early. */
function bodyOf(request: IncomingMessage): AsyncIterable<Buffer> {
  return request.iterator({ destroyOnReturn: false })
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of bodyOf(request)) {
    chunks.push(chunk)
    length += chunk.length
    if (length > MAX_UNARY_BYTES) throw new AppError('too_large', `A message may have ${MAX_UNARY_BYTES} bytes.`)
  }
  const body = chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks)
  return inflate(body, request.headers['content-encoding'])
}

async function readOneFrame(request: IncomingMessage): Promise<Buffer> {
  for await (const frame of readFrames(bodyOf(request))) {
    return inflateFrame(frame, request.headers['connect-content-encoding'])
  }
  throw new AppError('invalid_request', 'The request stream has no message.')
}

async function* decodeFrames(request: IncomingMessage, codec: Codec, schema: DescMessage): AsyncGenerator<unknown> {
  for await (const frame of readFrames(bodyOf(request))) {
    if ((frame.flags & FLAG_END) !== 0) return
    yield codec.decode(schema, await inflateFrame(frame, request.headers['connect-content-encoding']))
  }
}

function inflateFrame(frame: Frame, encoding: string | string[] | undefined): Promise<Buffer> | Buffer {
  return (frame.flags & FLAG_COMPRESSED) === 0 ? frame.payload : inflate(frame.payload, String(encoding))
}

async function inflate(bytes: Buffer, encoding: string | undefined): Promise<Buffer> {
  if (encoding === undefined || encoding === 'identity') return bytes
  if (encoding !== 'gzip') throw new AppError('method_not_allowed', `Unknown compression "${encoding}"; use gzip.`)
  const { gunzipSync } = await import('node:zlib')
  return gunzipSync(bytes, { maxOutputLength: MAX_UNARY_BYTES })
}
