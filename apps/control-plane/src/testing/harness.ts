import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Logger, silentLogger, type Tracer, UndoStack, waitFor } from '@wrenn/base'
import type { Capsule, ErrorBody } from '@wrenn/protocol'
import { FakeHost, isReplicated, startTestPostgres } from '@wrenn/testkit'
import { serverSpans } from '@wrenn/tracing'
import { sql } from 'kysely'
import WebSocket from 'ws'
import { readConfig } from '../config.js'
import { type ControlPlane, type ControlPlaneOptions, startControlPlane } from '../control-plane.js'
import { openDatabase } from '../store/database.js'
import { startFront } from './front.js'

export interface Platform extends AsyncDisposable {
  readonly url: string
  /** Of the listener for TLS, where `env` asks for one. */
  readonly tlsPort: number | undefined
  readonly key: string
  readonly databaseUrl: string
  readonly host: FakeHost
  /** Calls the API with the key; `body` is sent as JSON. */
  call(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Response>
  create(body?: object): Promise<Capsule>
  get(id: string): Promise<Capsule>
  /** Waits until the capsule is in `state`. */
  until(id: string, state: Capsule['state']): Promise<Capsule>
  open(
    path: string,
    options?: { readonly protocol?: string; readonly key?: string | undefined; readonly cookie?: string },
  ): Socket
  /** Ends the control plane and starts it again on the same database and host. @param meanwhile what is done in between */
  restart(meanwhile?: () => Promise<void>): Promise<void>
}

export interface PlatformOptions {
  readonly env?: Readonly<Record<string, string>>
  /** Of a server that is there already; a new database is made on it. */
  readonly databaseUrl?: string
  readonly logger?: Logger
  /** @default 500 */
  readonly drainMs?: number
  /** Of the control plane, and of its host. @default makes no spans */
  readonly tracers?: { readonly controlPlane: Tracer; readonly host: Tracer }
  /** As of the control plane itself, but that `tickMs` is 50 unless it is given: tests wait for what it looks for. */
  readonly timing?: Pick<
    ControlPlaneOptions,
    'tickMs' | 'lookForCertificateEveryMs' | 'handshakeWithinMs' | 'eventBeatMs' | 'channelFirstDelayMs' | 'openStates'
  >
}

/** A whole control plane on a real PostgreSQL and a fake host. */
export async function startPlatform(options: PlatformOptions = {}): Promise<Platform> {
  await using undo = new UndoStack()
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-test-cp-'))
  await undo.defer(() => rm(dir, { recursive: true, force: true }))
  let { databaseUrl } = options
  if (databaseUrl === undefined) {
    const postgres = await startTestPostgres()
    await undo.defer(() => postgres[Symbol.asyncDispose]())
    databaseUrl = postgres.url
  }
  const url = await freshDatabase(databaseUrl)
  const { tracers } = options
  const host = await FakeHost.start(tracers === undefined ? [] : [serverSpans(tracers.host)])
  await undo.defer(() => host[Symbol.asyncDispose]())
  const keyFile = join(dir, 'api-key')
  const { WRENN_PORT: port = '0', ...given } = options.env ?? {}
  const env = isReplicated() ? behind(port, given) : { ...given, WRENN_PORT: port }
  const config = readConfig({
    DATABASE_URL: url,
    WRENN_HOST_AGENT_ADDRESS: host.address,
    WRENN_API_KEY_FILE: keyFile,
    ...env,
  })
  const { logger = silentLogger, drainMs = 500, timing = {} } = options
  const more = { ...timing, ...(tracers === undefined ? {} : { tracer: tracers.controlPlane }) }
  const start = () => startControlPlane(config, logger, { tickMs: 50, drainMs, ...more })
  let running: ControlPlane = await start()
  await undo.defer(() => running[Symbol.asyncDispose]())
  const key = (await readFile(keyFile, 'utf8')).trim()
  const front = await frontOf(
    () => running.url,
    () => startReplica({ databaseUrl: url, host }, env, silentLogger, more),
    undo,
    Number(port),
  )
  const publicUrl = (): string => front ?? running.url
  const owned = undo.move()

  const platform: Platform = {
    get url() {
      return publicUrl()
    },
    get tlsPort() {
      return running.tlsPort
    },
    key,
    databaseUrl: url,
    host,
    call: (method, path, body, headers = {}) =>
      fetch(publicUrl() + path, {
        method,
        headers: {
          'x-api-key': key,
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      }),
    create: async (body = {}) => await json<Capsule>(await platform.call('POST', '/v1/capsules', body), 201),
    get: async (id) => await json<Capsule>(await platform.call('GET', `/v1/capsules/${id}`), 200),
    until: (id, state) =>
      waitFor(
        async () => {
          const capsule = await platform.get(id)
          return capsule.state === state ? capsule : undefined
        },
        { timeoutMs: 20_000, what: `capsule to be ${state}` },
      ),
    open: (path, { protocol, cookie, ...rest } = {}) => {
      const apiKey = 'key' in rest ? rest.key : key
      const headers = {
        ...(apiKey === undefined ? {} : { 'x-api-key': apiKey }),
        ...(cookie === undefined ? {} : { cookie, origin: publicUrl() }),
      }
      return new Socket(new WebSocket(publicUrl().replace('http', 'ws') + path, protocol ?? [], { headers }))
    },
    restart: async (meanwhile) => {
      await running[Symbol.asyncDispose]()
      await meanwhile?.()
      running = await start()
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  }
  return platform
}

/** Whoever is told where people reach the platform is told of what stands in front. */
function behind(port: string, env: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return { ...(port === '0' ? {} : { WRENN_PUBLIC_URL: `http://127.0.0.1:${port}` }), ...env, WRENN_PORT: '0' }
}

/** Two control planes behind one address, which have a test's requests in turn: `npm run test:replicas`. */
async function frontOf(
  first: () => string,
  startSecond: () => Promise<ControlPlane>,
  undo: UndoStack,
  port: number,
): Promise<string | undefined> {
  if (!isReplicated()) return undefined
  const second = await startSecond()
  await undo.defer(() => second[Symbol.asyncDispose]())
  const front = await startFront(() => [first(), second.url], port)
  await undo.defer(() => front[Symbol.asyncDispose]())
  return front.url
}

/** A second control plane on the same database and host. @param env what it is told beside that */
export async function startReplica(
  { databaseUrl, host }: Pick<Platform, 'databaseUrl' | 'host'>,
  env: Readonly<Record<string, string>> = {},
  logger: Logger = silentLogger,
  more: ControlPlaneOptions = {},
): Promise<ControlPlane> {
  const config = readConfig({
    DATABASE_URL: databaseUrl,
    WRENN_HOST_AGENT_ADDRESS: host.address,
    WRENN_PORT: '0',
    ...env,
  })
  return await startControlPlane(config, logger, { tickMs: 50, drainMs: 500, ...more })
}

/** A new, empty database on the same server. */
export async function freshDatabase(serverUrl: string): Promise<string> {
  const name = `test_${randomBytes(6).toString('hex')}`
  const db = openDatabase({ url: serverUrl })
  try {
    await sql.raw(`CREATE DATABASE ${name}`).execute(db)
  } finally {
    await db.destroy()
  }
  return serverUrl.replace(/\/postgres(\?|$)/, `/${name}$1`)
}

/** How an answer refuses. */
export async function refusal(response: Response): Promise<[status: number, code: string, message: string]> {
  const { code, message } = ((await response.json()) as ErrorBody).error
  return [response.status, code, message]
}

/** The JSON of an answer whose status is as expected. */
export async function json<T>(response: Response, status: number): Promise<T> {
  const text = await response.text()
  if (response.status !== status) throw new Error(`expected ${status}, got ${response.status}: ${text.slice(0, 500)}`)
  return JSON.parse(text) as T // the caller names the shape that the route promises
}

export interface Frame {
  readonly type: string
  readonly [field: string]: unknown
}

/** A WebSocket client that keeps every message until it is asked for. */
export class Socket {
  readonly raw: WebSocket
  readonly #messages: { readonly data: Buffer; readonly isBinary: boolean }[] = []
  #wake: () => void = () => {}
  closed: { readonly code: number; readonly reason: string } | undefined

  constructor(raw: WebSocket) {
    this.raw = raw
    raw.on('message', (data: Buffer, isBinary) => {
      this.#messages.push({ data, isBinary })
      this.#wake()
    })
    raw.on('error', () => {})
    raw.on('close', (code, reason) => {
      this.closed = { code, reason: reason.toString() }
      this.#wake()
    })
  }

  async opened(): Promise<this> {
    if (this.raw.readyState === WebSocket.CONNECTING) {
      await new Promise<void>((resolve, reject) => {
        this.raw.once('open', resolve)
        this.raw.once('error', reject)
      })
    }
    return this
  }

  async send(frame: object | Uint8Array): Promise<void> {
    await this.opened()
    this.raw.send(frame instanceof Uint8Array ? frame : JSON.stringify(frame))
  }

  async message(): Promise<{ readonly data: Buffer; readonly isBinary: boolean } | undefined> {
    for (;;) {
      const message = this.#messages.shift()
      if (message !== undefined || this.closed !== undefined) return message
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  async frame(): Promise<Frame | undefined> {
    const message = await this.message()
    return message === undefined ? undefined : (JSON.parse(message.data.toString()) as Frame)
  }

  /** Every frame up to one of `type`, which is the last. */
  async until(type: string): Promise<Frame[]> {
    const frames: Frame[] = []
    for (;;) {
      const frame = await this.frame()
      if (frame === undefined) throw new Error(`closed before ${type}: ${JSON.stringify([this.closed, frames])}`)
      frames.push(frame)
      if (frame.type === type) return frames
    }
  }
}
