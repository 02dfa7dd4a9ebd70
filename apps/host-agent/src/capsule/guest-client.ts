import { Agent, type IncomingMessage, request } from 'node:http'
import type { Readable } from 'node:stream'
import { type Client, Code, ConnectError, createClient, type Interceptor } from '@connectrpc/connect'
import { createConnectTransport } from '@connectrpc/connect-node'
import { AppError, errorText, waitFor } from '@wrenn/base'
import { ERROR_CODE_HEADER, isErrorCode } from '@wrenn/protocol'
import { Filesystem, Process } from '@wrenn/protocol/guest'
import { z } from 'zod'

export const GUEST_PORT = 49983
/** For calls that are repeated: a guest whose vCPUs do not yet run loses the SYN, and the next would follow after 1 s only. */
const ATTEMPT_CONNECT_TIMEOUT_MS = 300
/** After which an attempt that is repeated anyway is given up. A busy machine's emulated guest takes seconds. */
const ATTEMPT_ANSWER_TIMEOUT_MS = 30_000
/** For calls that are made once: a guest on a busy machine may take long to answer a SYN. */
const CONNECT_TIMEOUT_MS = 15_000
/** The clock of a guest may be this much late; a call that took longer to reach it is followed by another one. */
const MAX_LATE_MS = 500
const CLOCK_ATTEMPTS = 4
const SECRET_HEADER = 'x-wrenn-secret'

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
export type GuestMetrics = z.infer<typeof metricsAnswer>

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

export interface QuiesceOptions {
  /** Bring the whole data file system to the disk, so that the disk alone is complete. */
  readonly sync: boolean
  /** @default false */
  readonly dropCaches?: boolean
  readonly timeoutMs: number
}

/** How much longer than the guest's own deadline its answer may take. */
const QUIESCE_GRACE_MS = 1_000

const failure = z.object({ code: z.union([z.string(), z.number()]).optional(), message: z.string() })

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
  /** @default CONNECT_TIMEOUT_MS */
  readonly connectTimeoutMs?: number
}

/** The host agent's line to one guest's agent. Owns its connections; `close()` drops them. */
export class GuestClient {
  readonly process: Client<typeof Process>
  readonly filesystem: Client<typeof Filesystem>
  readonly #address: string
  readonly #agent = new Agent({ keepAlive: true, maxFreeSockets: 8, noDelay: true })
  readonly #closed = new AbortController()
  #secret: string

  constructor(address: string, secret: string) {
    this.#address = address
    this.#secret = secret
    const authenticate: Interceptor = (next) => (call) => {
      // As when it breaks: a stream is then taken up on the line that the capsule has by then.
      if (this.#closed.signal.aborted) throw new ConnectError(LINE_CLOSED, Code.Unavailable)
      call.header.set(SECRET_HEADER, this.#secret)
      return next(call)
    }
    const transport = createConnectTransport({
      httpVersion: '1.1',
      baseUrl: `http://${address}:${GUEST_PORT}`,
      nodeOptions: { agent: this.#agent },
      interceptors: [authenticate],
    })
    this.process = createClient(Process, transport)
    this.filesystem = createClient(Filesystem, transport)
  }

  /** Waits until the guest agent answers. @throws AppError `guest_error` after `timeoutMs`, or once the line is closed */
  async waitHealthy(timeoutMs: number): Promise<void> {
    await waitFor(() => this.#healthy(timeoutMs), {
      timeoutMs,
      intervalMs: 10,
      what: 'the guest agent to answer',
      code: 'guest_error',
      signal: this.#closed.signal,
    })
  }

  async #healthy(timeoutMs: number): Promise<true | undefined> {
    try {
      const answer = await this.#http({ method: 'GET', path: '/health', ...attemptWithin(timeoutMs) })
      answer.resume()
      return answer.statusCode === 204 || answer.statusCode === 200 ? true : undefined
    } catch {
      return undefined // not up yet; the deadline of waitHealthy decides
    }
  }

  /**
   * Gives the guest its identity; from then on this client uses the new secret. Repeated while the guest is not reached,
   * with the new secret too: an answer may have been lost after the guest took it.
   * @throws AppError `guest_error` after `timeoutMs`
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
          if (!refused && failure.code !== 'guest_error') throw failure
        })
        if (answer !== undefined) return answer
      }
      return undefined
    }
    const what = 'the guest agent to take its identity'
    const options = { timeoutMs, intervalMs: 10, what, code: 'guest_error', signal: this.#closed.signal }
    const answer = await waitFor(attempt, options)
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
    const answer = await this.#http({
      method: 'POST',
      path: '/init',
      headers: { 'content-type': 'application/json', 'content-length': String(body.length) },
      body,
      ...attemptWithin(timeoutMs),
    })
    const { tookMs, ...parsed } = initAnswer.parse(await readJson(answer))
    const elapsedMs = performance.now() - sentAt
    return { ...parsed, lateMs: elapsedMs - (tookMs ?? elapsedMs) }
  }

  /**
   * Has the guest write out what is on its way to the disk. Takes at most `timeoutMs` and a second; what was not done by then
   * is `false` and goes on. @throws AppError `guest_error` when the guest does not answer at all
   */
  async quiesce(options: QuiesceOptions): Promise<QuiesceResult> {
    const body = Buffer.from(JSON.stringify(options))
    const request = {
      method: 'POST',
      path: '/quiesce',
      headers: { 'content-type': 'application/json', 'content-length': String(body.length) },
      body,
      signal: AbortSignal.timeout(options.timeoutMs + QUIESCE_GRACE_MS),
    }
    try {
      return quiesceAnswer.parse(await readJson(await this.#http(request)))
    } catch (error) {
      throw guestError(error)
    }
  }

  /** What keeps the guest from being idle, as its agent sees it. @throws AppError `guest_error` */
  async activity(signal?: AbortSignal): Promise<GuestActivity> {
    try {
      return activityAnswer.parse(await readJson(await this.#http({ method: 'GET', path: '/activity', signal })))
    } catch (error) {
      throw guestError(error)
    }
  }

  /** The environment that commands get by default. */
  async envs(): Promise<Readonly<Record<string, string>>> {
    return z.record(z.string(), z.string()).parse(await readJson(await this.#http({ method: 'GET', path: '/envs' })))
  }

  async metrics(): Promise<GuestMetrics> {
    return metricsAnswer.parse(await readJson(await this.#http({ method: 'GET', path: '/metrics' })))
  }

  /** @throws AppError `file_not_found`, `is_a_directory`, `permission_denied`, `range_not_satisfiable` */
  async readFile(
    path: string,
    user: string,
    range: { readonly offset: number; readonly length: number | undefined },
    signal?: AbortSignal,
  ): Promise<{ readonly size: number; readonly length: number; readonly body: IncomingMessage }> {
    const ranged = range.offset > 0 || range.length !== undefined
    const last = range.length === undefined ? '' : String(range.offset + range.length - 1)
    const answer = await this.#http({
      method: 'GET',
      path: `/files?${fileQuery(path, user)}`,
      headers: { 'accept-encoding': 'identity', ...(ranged ? { range: `bytes=${range.offset}-${last}` } : {}) },
      signal,
    })
    const length = Number(answer.headers['content-length'] ?? 0)
    const total = /\/(\d+)$/.exec(answer.headers['content-range'] ?? '')?.[1]
    return { size: total === undefined ? length : Number(total), length, body: answer }
  }

  /** Streams `body` into a file, creating parents. @throws AppError `disk_full`, `permission_denied`, `is_a_directory` */
  async writeFile(path: string, user: string, body: Readable, signal?: AbortSignal): Promise<void> {
    const answer = await this.#http({
      method: 'POST',
      path: `/files?${fileQuery(path, user)}`,
      headers: { 'content-type': 'application/octet-stream' },
      body,
      signal,
    })
    await readJson(answer)
  }

  /** Ends all calls and takes no more: the guest's address may be another one's soon. */
  close(): void {
    this.#closed.abort(lineClosed())
    this.#agent.destroy()
  }

  #requireOpen(): void {
    if (this.#closed.signal.aborted) throw lineClosed()
  }

  async #http(options: HttpOptions): Promise<IncomingMessage> {
    this.#requireOpen()
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      const outgoing = request({
        host: this.#address,
        port: GUEST_PORT,
        agent: this.#agent,
        method: options.method,
        path: options.path,
        headers: { ...options.headers, [SECRET_HEADER]: this.#secret },
        ...(options.signal ? { signal: options.signal } : {}),
      })
      outgoing.on('socket', (socket) => {
        if (!socket.connecting) return
        const timer = setTimeout(
          () => outgoing.destroy(new AppError('guest_error', 'The guest did not take the connection.')),
          options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
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
    if ((answer.statusCode ?? 500) < 400) return answer
    throw await httpFailure(answer)
  }
}

function attemptWithin(timeoutMs: number): Pick<HttpOptions, 'signal' | 'connectTimeoutMs'> {
  const signal = AbortSignal.timeout(Math.min(timeoutMs, ATTEMPT_ANSWER_TIMEOUT_MS))
  return { signal, connectTimeoutMs: ATTEMPT_CONNECT_TIMEOUT_MS }
}

const LINE_CLOSED = 'The line to the guest was closed.'

function lineClosed(): AppError {
  return new AppError('guest_error', LINE_CLOSED)
}

function fileQuery(path: string, user: string): string {
  const query = new URLSearchParams({ path })
  if (user !== '') query.set('username', user)
  return query.toString()
}

async function readJson(answer: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  for await (const chunk of answer) chunks.push(chunk)
  const text = Buffer.concat(chunks).toString('utf8')
  return text === '' ? {} : JSON.parse(text)
}

const codeOfStatus: Readonly<Record<number, string>> = {
  400: 'invalid_request',
  401: 'invalid_request',
  403: 'permission_denied',
  404: 'file_not_found',
  409: 'conflict',
  413: 'too_large',
  416: 'range_not_satisfiable',
  507: 'disk_full',
}

/**
 * The Wrenn code that the guest named. A guest says `unauthorized` to a user it does not know; to our callers, whose key was
 * fine, that is a wrong request.
 */
function codeNamed(header: unknown): string | undefined {
  if (typeof header !== 'string' || !isErrorCode(header)) return undefined
  return header === 'unauthorized' ? 'invalid_request' : header
}

async function httpFailure(answer: IncomingMessage): Promise<AppError> {
  const status = answer.statusCode ?? 500
  const named = codeNamed(answer.headers[ERROR_CODE_HEADER])
  const body = failure.safeParse(await readJson(answer).catch(() => undefined))
  const message = body.success ? body.data.message : `The guest agent answered with status ${status}.`
  return new AppError(named ?? codeOfStatus[status] ?? 'guest_error', message, { details: { status } })
}

const codeOfConnect: Partial<Record<Code, string>> = {
  [Code.InvalidArgument]: 'invalid_request',
  [Code.NotFound]: 'not_found',
  [Code.AlreadyExists]: 'conflict',
  [Code.FailedPrecondition]: 'invalid_state',
  [Code.PermissionDenied]: 'permission_denied',
  [Code.Unauthenticated]: 'invalid_request',
  [Code.ResourceExhausted]: 'limit_exceeded',
  [Code.DeadlineExceeded]: 'timeout',
  [Code.OutOfRange]: 'range_not_satisfiable',
}

/** Keeps the meaning of a guest failure: its Wrenn code where it sent one, else the nearest to its Connect code. */
export function guestError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown
  if (thrown instanceof ConnectError) {
    const named = codeNamed(thrown.metadata.get(ERROR_CODE_HEADER))
    return new AppError(named ?? codeOfConnect[thrown.code] ?? 'guest_error', thrown.rawMessage, { cause: thrown })
  }
  return new AppError('guest_error', `The guest agent could not be reached: ${errorText(thrown)}.`, { cause: thrown })
}

/** Connection-level failures after which a stream may be resumed from its offset. */
export function isBrokenLine(thrown: unknown): boolean {
  if (!(thrown instanceof ConnectError)) return !(thrown instanceof AppError)
  if (thrown.metadata.has(ERROR_CODE_HEADER)) return false
  return thrown.code === Code.Unavailable || thrown.code === Code.Aborted || thrown.code === Code.Internal
}

/** The header through which the guest agent learns whom to act as; empty means its default user. */
export function asUser(user: string): Record<string, string> {
  return user === '' ? {} : { authorization: `Basic ${Buffer.from(`${user}:`).toString('base64')}` }
}
