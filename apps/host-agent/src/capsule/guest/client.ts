import { Agent, type IncomingMessage, request } from 'node:http'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { type Client, Code, ConnectError, createClient, type Interceptor } from '@connectrpc/connect'
import { createConnectTransport } from '@connectrpc/connect-node'
import { AppError, inSpan, noTracer, type Tracer, waitFor } from '@wrenn/base'
import { GUEST_AGENT_PORT } from '@wrenn/protocol'
import { Filesystem, Process } from '@wrenn/protocol/guest'
import { clientSpans } from '@wrenn/tracing'
import { z } from 'zod'
import { dialPort, SECRET_HEADER } from './dial.js'
import { discard, guestError, httpFailure, isNoAnswer, readJson } from './error.js'
import { endOfMany, type Patience, Pulse, patienceOf, type WatchOptions } from './pulse.js'

/** TCP port of the guest agent. */
export const GUEST_PORT = GUEST_AGENT_PORT
/** For calls that are repeated: a guest whose vCPUs do not yet run loses the SYN, and the next would follow after 1 s only. */
const ATTEMPT_CONNECT_TIMEOUT_MS = 300
/** After which an attempt that is repeated anyway is given up. A busy machine's emulated guest takes seconds. */
const ATTEMPT_ANSWER_TIMEOUT_MS = 30_000
/** The clock of a guest may be this much late; a call that took longer to reach it is followed by another one. */
const MAX_LATE_MS = 500
const CLOCK_ATTEMPTS = 4
/** Of one message of the guest, unpacked: far above an event's output. Without a bound it would be 4 GiB. */
const MESSAGE_BYTES = 4 * 2 ** 20
/** Of a list, which is one message: room for some 250,000 files. */
const LIST_BYTES = 64 * 2 ** 20
/** The environment of a capsule may be 8 MiB before JSON escapes it. */
const ENVS_BYTES = 16 * 2 ** 20

/** Of spans of calls. */
const TO_GUEST = { 'peer.service': 'wrenn-guest-agent' } as const
/** Asked until they are answered: the wait as a whole is measured. */
const repeated: ReadonlySet<string> = new Set(['/health', '/init'])

const initAnswer = z.object({
  agentVersion: z.string().default(''),
  /** What the guest could not do, such as a host name that its owner made read-only. */
  problems: z.array(z.string()).default([]),
  /** From when the guest's agent had the call until it answered. */
  tookMs: z.number().optional(),
})
/** `lateMs`: how long the call was on its way, by which the guest's clock may be late. */
export type IdentifyAnswer = z.infer<typeof initAnswer> & { readonly lateMs: number }

const metricsAnswer = z.object({
  cpu_count: z.number().default(0),
  cpu_used_pct: z.number().default(0),
  mem_total: z.number().default(0),
  mem_used: z.number().default(0),
  mem_cache: z.number().default(0),
  disk_used: z.number().default(0),
  disk_total: z.number().default(0),
})
type GuestMetrics = z.infer<typeof metricsAnswer>

const activityAnswer = z.object({ foreground: z.number(), processes: z.number(), openStreams: z.number() })
/** `openStreams`: requests that the guest's agent has not answered to their end, file transfers and tunnels among them. */
export type GuestActivity = z.infer<typeof activityAnswer>

const quiesceAnswer = z.object({
  flushed: z.boolean(),
  synced: z.boolean(),
  droppedCaches: z.boolean().default(false),
  problems: z.array(z.string()).default([]),
})
/** What was done within the time: output logs written, data file system synced, page cache dropped. */
export type QuiesceResult = z.infer<typeof quiesceAnswer>

interface QuiesceOptions {
  /** Bring the whole data file system to the disk, so that the disk alone is complete. */
  readonly sync: boolean
  /** @default false */
  readonly dropCaches?: boolean
  readonly timeoutMs: number
}

/** A guest that refuses connections for two seconds is not just busy with them. */
const SIGN_ATTEMPTS = 10
const SIGN_PAUSE_MS = 200

/** How much longer than the guest's own deadline its answer may take. */
const QUIESCE_GRACE_MS = 1_000

/** Who a guest is told to be. Everything is optional: what is absent stays as it was. */
export interface GuestIdentity {
  readonly secret: string
  readonly capsuleId: string
  readonly hostname: string
  readonly machineId: string
  readonly entropy: string
  readonly envs: Readonly<Record<string, string>>
  readonly defaultUser: string
  readonly defaultCwd: string
  /** Drop ended processes and their output, such as what warmed the template. */
  readonly forgetEnded: boolean
  /** The guest was saved while it ran: its TCP connections with other machines lead nowhere, and it ends them. */
  readonly resumed: boolean
}

interface HttpOptions {
  readonly method: string
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Readable | Buffer
  readonly signal?: AbortSignal | undefined
  /** @default none: whoever asks bounds the whole call */
  readonly connectTimeoutMs?: number
  /** A connection of its own, or one that was used before. @default used before */
  readonly isFresh?: boolean
  /** A status that is an answer here, although it says no. @default none */
  readonly accepts?: number
}

/** An answer as it comes from the guest. `close` ends the transfer, also one that nobody reads. */
export interface GuestStream {
  /** @throws AppError `guest_unreachable` */
  readonly chunks: AsyncIterable<Uint8Array>
  readonly close: () => void
}

/** What is wanted of a file: bytes, or what the headers of an HTTP client ask for. */
export type FileWish =
  | { readonly offset: number; readonly length: number | undefined }
  | { readonly headers: Readonly<Record<string, string>>; readonly statOnly: boolean }

/** How a file is to be written. */
export interface WriteWish {
  /** Permission bits; absent: those of the file that is replaced, else 0644. */
  readonly mode?: number | undefined
  /** Conditions of an HTTP client, by lower-case name. */
  readonly headers: Readonly<Record<string, string>>
}

/** Headers that say something of the file itself. */
const fileHeaders = ['etag', 'last-modified', 'accept-ranges', 'content-range'] as const

/** An open file of the guest, or the answer that there is nothing to send (304, 416). */
export interface GuestFile extends GuestStream {
  /** Of the whole file. */
  readonly size: number
  /** Of what follows. */
  readonly length: number
  /** Only its end tells how long the file is; the numbers above say nothing. */
  readonly unsized: boolean
  /** 200, 206, 304 or 416. */
  readonly status: number
  /** What the answer says of the file, `fileHeaders` at most. */
  readonly headers: Readonly<Record<string, string>>
}

/** The host agent's line to one guest's agent. Owns its connections; `close()` drops them. */
export class GuestClient {
  readonly process: Client<typeof Process>
  readonly filesystem: Client<typeof Filesystem>
  /** The calls whose answer is a list of any length. */
  readonly lists: {
    readonly process: Pick<Client<typeof Process>, 'list'>
    readonly filesystem: Pick<Client<typeof Filesystem>, 'listDir'>
  }
  /** Whether the guest gives any sign of itself; unary calls and file transfers are ended by it, streams by their reader. */
  readonly pulse: Pulse
  readonly #address: string
  readonly #agent: Agent
  readonly #closed = endOfMany()
  readonly #tracer: Tracer
  #secret: string

  /** With a tracer, what a traced operation asks of the guest is measured. */
  constructor(address: string, secret: string, patience: Patience = patienceOf(), tracer: Tracer = noTracer) {
    this.#tracer = tracer
    this.#address = address
    this.#secret = secret
    // Node has the kernel look after a connection that it keeps, after one second, and give it up ten seconds later: a call to a guest that
    // is merely slow would end before its time.
    this.#agent = new Agent({ keepAlive: true, keepAliveMsecs: patience.silenceMs, maxFreeSockets: 8, noDelay: true })
    this.pulse = new Pulse(patience, (signal) => this.#isHealthy({ signal, isFresh: true }))
    const guard: Interceptor = (next) => async (call) => {
      if (call.stream) return await next(call)
      return await this.pulse.guard((given) => next({ ...call, signal: AbortSignal.any([call.signal, given]) }))
    }
    const authenticate: Interceptor = (next) => (call) => {
      // As when it breaks: a stream is then taken up on the line that the capsule has by then.
      if (this.#closed.signal.aborted) throw new ConnectError(LINE_CLOSED, Code.Unavailable)
      call.header.set(SECRET_HEADER, this.#secret)
      return next(call)
    }
    // The guest is told of no trace: it could send nothing of it, and what it said would prove nothing.
    const traced = tracer.isOn ? [clientSpans({ tracer, tells: false, fields: TO_GUEST })] : []
    const transportFor = (readMaxBytes: number) =>
      createConnectTransport({
        httpVersion: '1.1',
        baseUrl: `http://${address}:${GUEST_PORT}`,
        nodeOptions: { agent: this.#agent },
        readMaxBytes,
        // What we do not know is not carried on to those who asked.
        binaryOptions: { readUnknownFields: false },
        interceptors: [...traced, guard, authenticate],
      })
    const transport = transportFor(MESSAGE_BYTES)
    const wide = transportFor(LIST_BYTES)
    this.process = createClient(Process, transport)
    this.filesystem = createClient(Filesystem, transport)
    this.lists = { process: createClient(Process, wide), filesystem: createClient(Filesystem, wide) }
  }

  /** Waits until the guest agent answers. @throws AppError `guest_unreachable` after `timeoutMs`, `guest_error` once the line is closed */
  async waitHealthy(timeoutMs: number): Promise<void> {
    const connectTimeoutMs = ATTEMPT_CONNECT_TIMEOUT_MS
    const attempt = async (): Promise<true | undefined> =>
      (await withinMs(attemptMs(timeoutMs), (signal) => this.#isHealthy({ signal, connectTimeoutMs }))) || undefined
    await waitFor(attempt, {
      timeoutMs,
      intervalMs: 10,
      what: 'the guest agent to answer',
      code: 'guest_unreachable',
      signal: this.#closed.signal,
    })
  }

  /**
   * Asks for a sign of the guest, on a connection of its own: one that was used before may have ended while nobody looked.
   * @throws AppError `guest_unreachable`, also when the line is closed meanwhile
   */
  async requireReachable(): Promise<void> {
    await this.pulse.guard(async (signal) => {
      for (let attempt = 1; !(await this.#isHealthy({ signal, isFresh: true })); attempt++) {
        // One that just goes on from a saved state ends every connection it finds; an agent that was killed is started anew.
        if (attempt === SIGN_ATTEMPTS || signal.aborted || this.#closed.signal.aborted) throw unreachableNow()
        await delay(SIGN_PAUSE_MS)
      }
    })
  }

  async #isHealthy(options: Omit<HttpOptions, 'method' | 'path'>): Promise<boolean> {
    try {
      const answer = await this.#http({ method: 'GET', path: '/health', ...options })
      await discard(answer)
      return true
    } catch {
      return false // not up, or away; whoever asks knows how long it waits
    }
  }

  /**
   * Gives the guest its identity; from then on this client uses the new secret. Repeated while the guest is not reached,
   * with the new secret too: an answer may have been lost after the guest took it.
   * @throws AppError `guest_unreachable` after `timeoutMs`
   */
  async identify(identity: Partial<GuestIdentity>, timeoutMs: number): Promise<IdentifyAnswer> {
    const secrets = [...new Set([this.#secret, identity.secret ?? this.#secret])]
    const attempt = async (): Promise<IdentifyAnswer | undefined> => {
      for (const secret of secrets) {
        this.#secret = secret
        const answer = await this.#init(identity, timeoutMs).catch((error: unknown) => {
          const failure = guestError(error)
          // A refused secret: the guest may have taken the new one with an answer that was lost.
          const refused = failure.details?.status === 401
          if (!refused && !isNoAnswer(failure)) throw failure
        })
        if (answer !== undefined) return answer
      }
      return undefined
    }
    const what = 'the guest agent to take its identity'
    const options = { timeoutMs, intervalMs: 10, what, code: 'guest_unreachable', signal: this.#closed.signal }
    const answer = await this.#measured('POST /init', () => waitFor(attempt, options))
    if (identity.secret !== undefined) this.#secret = identity.secret
    await this.#correctClock(answer, timeoutMs)
    return answer
  }

  /** On a busy machine a call may be a second on its way, and the time that it brings is then that old. */
  async #correctClock(answer: IdentifyAnswer, timeoutMs: number): Promise<void> {
    let { lateMs } = answer
    for (let attempt = 0; lateMs > MAX_LATE_MS && attempt < CLOCK_ATTEMPTS; attempt++) {
      const corrected = await this.#init({}, timeoutMs).catch(() => undefined)
      if (corrected === undefined) return // it has its identity; whoever uses it next learns that it does not answer
      lateMs = corrected.lateMs
    }
  }

  async #init(identity: Partial<GuestIdentity>, timeoutMs: number): Promise<IdentifyAnswer> {
    // A new time with each try, or the guest's clock would be late by as long as the tries took.
    const sentAt = performance.now()
    const body = Buffer.from(JSON.stringify({ ...identity, timestampNs: String(BigInt(Date.now()) * 1_000_000n) }))
    const request = {
      method: 'POST',
      path: '/init',
      headers: { 'content-type': 'application/json', 'content-length': String(body.length) },
      body,
      connectTimeoutMs: ATTEMPT_CONNECT_TIMEOUT_MS,
    }
    const answer = await withinMs(
      attemptMs(timeoutMs),
      async (signal) => await readJson(await this.#http({ ...request, signal })),
    )
    const { tookMs, ...parsed } = initAnswer.parse(answer)
    const elapsedMs = performance.now() - sentAt
    return { ...parsed, lateMs: elapsedMs - (tookMs ?? elapsedMs) }
  }

  /**
   * Has the guest write out what is on its way to the disk. Takes at most `timeoutMs` and a second; what was not done by then
   * is `false` and goes on. @throws AppError `guest_unreachable` when the guest does not answer at all
   */
  async quiesce(options: QuiesceOptions): Promise<QuiesceResult> {
    const body = Buffer.from(JSON.stringify(options))
    const request = {
      method: 'POST',
      path: '/quiesce',
      headers: { 'content-type': 'application/json', 'content-length': String(body.length) },
      body,
    }
    try {
      const answer = await withinMs(
        options.timeoutMs + QUIESCE_GRACE_MS,
        async (signal) => await readJson(await this.#http({ ...request, signal })),
      )
      return quiesceAnswer.parse(answer)
    } catch (error) {
      throw guestError(error)
    }
  }

  /** What keeps the guest from being idle, as its agent sees it. @throws AppError `guest_unreachable` after `timeoutMs` */
  async activity(timeoutMs: number): Promise<GuestActivity> {
    try {
      const ask = async (signal: AbortSignal) => await readJson(await this.#get('/activity', signal))
      return activityAnswer.parse(await withinMs(timeoutMs, ask))
    } catch (error) {
      throw guestError(error)
    }
  }

  /** The environment that commands get by default. */
  async envs(): Promise<Readonly<Record<string, string>>> {
    const answer = await this.pulse.guard(
      async (signal) => await readJson(await this.#get('/envs', signal), ENVS_BYTES),
    )
    return z.record(z.string(), z.string()).parse(answer)
  }

  async metrics(options: WatchOptions = {}): Promise<GuestMetrics> {
    const ask = async (signal: AbortSignal) => await readJson(await this.#get('/metrics', signal))
    return metricsAnswer.parse(await this.pulse.guard(ask, options))
  }

  async #get(path: string, signal: AbortSignal): Promise<IncomingMessage> {
    return await this.#http({ method: 'GET', path, signal })
  }

  /** @throws AppError `file_not_found`, `is_a_directory`, `permission_denied`, `range_not_satisfiable` */
  async readFile(path: string, user: string, wish: FileWish, signal?: AbortSignal): Promise<GuestFile> {
    const { method, headers } = requestFor(wish)
    const answer = await this.pulse.guard(
      async (given) =>
        await this.#http({
          method,
          path: `/files?${fileQuery(path, user)}`,
          headers: { ...headers, 'accept-encoding': 'identity' },
          signal: either(signal, given),
          ...('headers' in wish ? { accepts: 416 } : {}),
        }),
    )
    return fileOf(answer, wish, this.#chunks(answer))
  }

  async *#chunks(answer: IncomingMessage): AsyncGenerator<Uint8Array> {
    using watch = this.pulse.watch()
    watch.signal.addEventListener('abort', () => answer.destroy(), { once: true })
    try {
      watch.waits()
      for await (const chunk of answer) {
        watch.got()
        yield chunk
        watch.waits()
      }
    } catch (error) {
      throw watch.failure ?? error
    }
  }

  /**
   * Streams `body` into a file, creating parents.
   * @throws AppError `disk_full`, `permission_denied`, `is_a_directory`, `precondition_failed`, `method_not_allowed` from an agent that
   * knows no conditions
   */
  async writeFile(path: string, user: string, body: Readable, wish: WriteWish, signal?: AbortSignal): Promise<void> {
    const bits = wish.mode === undefined ? '' : `&mode=${wish.mode.toString(8).padStart(3, '0')}`
    const headers = { ...wish.headers, 'content-type': 'application/octet-stream' }
    // An agent that would not look at the conditions knows no PUT.
    const method = Object.keys(wish.headers).length === 0 ? 'POST' : 'PUT'
    try {
      await this.#upload({ method, path: `/files?${fileQuery(path, user)}${bits}`, headers, body }, signal)
    } catch (error) {
      if (!AppError.is(error, 'method_not_allowed')) throw error
      const text = 'This capsule runs since before its guest agent knew conditions of uploads: upload without them.'
      throw new AppError('method_not_allowed', text, { cause: error })
    }
  }

  /** Streams `body` to a route. @returns its answer's JSON @throws AppError with the guest's code */
  async send(path: string, type: string, body: Readable, signal?: AbortSignal): Promise<unknown> {
    return await this.#upload({ method: 'POST', path, headers: { 'content-type': type }, body }, signal)
  }

  async #upload(options: HttpOptions, signal: AbortSignal | undefined): Promise<unknown> {
    return await this.pulse.guard(
      async (given) => await readJson(await this.#http({ ...options, signal: either(signal, given) })),
    )
  }

  /** Opens an answer of a route that streams. Whoever opened it closes it. @throws AppError with the guest's code */
  async open(path: string, signal?: AbortSignal): Promise<GuestStream> {
    const answer = await this.pulse.guard(async (given) => await this.#get(path, either(signal, given)))
    return { chunks: this.#chunks(answer), close: () => void answer.destroy() }
  }

  /**
   * A connection to a port of the guest, wherever in it the service listens; to the agent's own port, one for clients. Whoever asked owns it; it
   * breaks off with the line.
   * @throws AppError `port_closed`, `guest_unreachable`, `guest_error`
   */
  async dial(port: number, signal: AbortSignal): Promise<Socket> {
    this.#requireOpen()
    const socket = await this.pulse.guard(async (given) => {
      const opened = await dialPort(this.#address, this.#secret, port, AbortSignal.any([signal, given]))
      if (given.aborted || this.#closed.signal.aborted) opened.destroy()
      return opened
    })
    this.#requireOpen()
    const breakOff = (): void => void socket.destroy()
    this.#closed.signal.addEventListener('abort', breakOff, { once: true })
    socket.once('close', () => this.#closed.signal.removeEventListener('abort', breakOff))
    return socket
  }

  /** Where the host reaches the guest, until the line ends. `ended` aborts before the address may be another one's. */
  get place(): { readonly address: string; readonly ended: AbortSignal } {
    return { address: this.#address, ended: this.#closed.signal }
  }

  /** Ends all calls and takes no more: the guest's address may be another one's soon. */
  close(): void {
    this.#closed.abort(lineClosed())
    this.#agent.destroy()
  }

  #requireOpen(): void {
    if (this.#closed.signal.aborted) throw lineClosed()
  }

  /** Until the head of its answer, an upload with all that is sent. */
  async #http(options: HttpOptions): Promise<IncomingMessage> {
    const route = options.path.split('?', 1)[0] ?? ''
    if (repeated.has(route)) return await this.#exchange(options)
    return await this.#measured(`${options.method} ${route}`, () => this.#exchange(options))
  }

  /** A call of an operation that is traced. */
  async #measured<T>(name: string, ask: () => Promise<T>): Promise<T> {
    if (!this.#tracer.isActive()) return await ask()
    const options = { kind: 'client', fields: TO_GUEST } as const
    return await inSpan(this.#tracer, `guest ${name}`, options, ask, (error) => guestError(error).code)
  }

  async #exchange(options: HttpOptions): Promise<IncomingMessage> {
    this.#requireOpen()
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      const outgoing = request({
        host: this.#address,
        port: GUEST_PORT,
        agent: options.isFresh ? false : this.#agent,
        method: options.method,
        path: options.path,
        headers: { ...options.headers, [SECRET_HEADER]: this.#secret },
        ...(options.signal ? { signal: options.signal } : {}),
      })
      outgoing.on('socket', (socket) => {
        if (!socket.connecting || options.connectTimeoutMs === undefined) return
        const timer = setTimeout(
          () => outgoing.destroy(new AppError('guest_unreachable', 'The guest did not take the connection.')),
          options.connectTimeoutMs,
        )
        socket.once('connect', () => clearTimeout(timer))
        socket.once('close', () => clearTimeout(timer))
      })
      outgoing.once('response', resolve)
      outgoing.once('error', reject)
      if (options.body === undefined) outgoing.end()
      else if (Buffer.isBuffer(options.body)) outgoing.end(options.body)
      else {
        const source = options.body
        source.once('error', (error) => outgoing.destroy(error))
        outgoing.once('close', () => source.destroy())
        source.pipe(outgoing)
      }
    })
    if ((answer.statusCode ?? 500) < 400 || answer.statusCode === options.accepts) return answer
    throw await httpFailure(answer)
  }
}

function unreachableNow(): AppError {
  return new AppError('guest_unreachable', 'The guest cannot be reached.')
}

function attemptMs(timeoutMs: number): number {
  return Math.min(timeoutMs, ATTEMPT_ANSWER_TIMEOUT_MS)
}

/** Makes a call that must end in time; its timer ends with it. @throws AppError `guest_unreachable`, or what `ask` throws */
async function withinMs<T>(ms: number, ask: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController()
  const late = new AppError('guest_unreachable', `The guest did not answer within ${ms} ms.`)
  const timer = setTimeout(() => abort.abort(late), ms)
  try {
    return await ask(abort.signal)
  } catch (error) {
    throw abort.signal.aborted ? late : error
  } finally {
    clearTimeout(timer)
  }
}

function either(one: AbortSignal | undefined, other: AbortSignal): AbortSignal {
  return one === undefined ? other : AbortSignal.any([one, other])
}

const LINE_CLOSED = 'The line to the guest was closed.'

function lineClosed(): AppError {
  return new AppError('guest_error', LINE_CLOSED)
}

function requestFor(wish: FileWish): Pick<HttpOptions, 'method'> & { readonly headers: Record<string, string> } {
  if ('headers' in wish) return { method: wish.statOnly ? 'HEAD' : 'GET', headers: { ...wish.headers } }
  const { offset, length } = wish
  // No range says "nothing".
  if (length === 0) return { method: 'HEAD', headers: {} }
  if (offset === 0 && length === undefined) return { method: 'GET', headers: {} }
  return { method: 'GET', headers: { range: `bytes=${offset}-${length === undefined ? '' : offset + length - 1}` } }
}

function fileOf(answer: IncomingMessage, wish: FileWish, chunks: AsyncIterable<Uint8Array>): GuestFile {
  const { statusCode: status = 500, headers: all } = answer
  const headers: Record<string, string> = {}
  for (const name of fileHeaders) if (all[name] !== undefined) headers[name] = all[name]
  const close = (): void => void answer.destroy()
  const told = all['content-length']
  const total = /\/(\d+)$/.exec(headers['content-range'] ?? '')?.[1] ?? told ?? 0
  const hasBody = status < 300 && requestFor(wish).method === 'GET'
  if (!hasBody) discard(answer).catch(() => {}) // whoever reads nothing of it hears nothing of its end
  const length = 'length' in wish && wish.length === 0 ? 0 : Number(told ?? 0)
  const isWhole = status === 200 && !('headers' in wish) && (wish.offset > 0 || wish.length !== undefined)
  return {
    size: Number(total),
    length,
    unsized: told === undefined && status < 300,
    status,
    headers,
    chunks: !hasBody ? none() : isWhole ? cutOut(chunks, wish.offset, wish.length) : chunks,
    close,
  }
}

async function* none(): AsyncGenerator<Uint8Array> {}

/** A file without a known length is always sent whole; what is wanted of it is taken out here. */
async function* cutOut(
  chunks: AsyncIterable<Uint8Array>,
  offset: number,
  length = Number.POSITIVE_INFINITY,
): AsyncGenerator<Uint8Array> {
  let position = 0
  for await (const chunk of chunks) {
    const wanted = chunk.subarray(Math.max(0, offset - position), Math.max(0, offset + length - position))
    position += chunk.length
    if (wanted.length > 0) yield wanted
    if (position >= offset + length) return
  }
}

/** The query of the guest's file routes; an empty user is left out, which means the guest's default user. */
export function fileQuery(path: string, user: string): string {
  const query = new URLSearchParams({ path })
  if (user !== '') query.set('username', user)
  return query.toString()
}

/** The header through which the guest agent learns whom to act as; empty means its default user. */
export function asUser(user: string): Record<string, string> {
  return user === '' ? {} : { authorization: `Basic ${Buffer.from(`${user}:`).toString('base64')}` }
}
