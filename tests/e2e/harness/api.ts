import type {
  BackgroundResult,
  Capsule,
  Checkpoint,
  CreateCapsuleRequest,
  ExecRequest,
  ExecResult,
  ForkRequest,
  ForkResult,
  ProcessList,
} from '@wrenn/protocol'
import { afterAll, beforeAll, inject } from 'vitest'
import type { Platform } from './platform.js'
import { eventually } from './wait.js'

type Query = Readonly<Record<string, string>>

export interface CallOptions {
  readonly query?: Query
  readonly json?: unknown
  readonly body?: NonNullable<RequestInit['body']>
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly bytes: Buffer
  /** The body as JSON, of the shape the caller knows the route to have. */
  json<T>(): T
}

/** Code and message of an error answer, with its status: what a test compares. */
export interface Refusal {
  readonly status: number
  readonly code: string
  readonly message: string
}

/** The REST API as a plain HTTP client sees it. */
export class Api {
  readonly #url: string
  readonly #key: string | undefined

  /** @param key Absent: the platform's first key. `''`: none at all. */
  constructor(platform: Pick<Platform, 'url' | 'apiKey'>, key: string = platform.apiKey) {
    this.#url = platform.url
    this.#key = key === '' ? undefined : key
  }

  get headers(): Record<string, string> {
    return this.#key === undefined ? {} : { 'X-API-Key': this.#key }
  }

  async call(method: string, path: string, options: CallOptions = {}): Promise<Answer> {
    const { query, json, body = json === undefined ? undefined : JSON.stringify(json), headers, signal } = options
    const url = new URL(path, this.#url)
    for (const [name, value] of Object.entries(query ?? {})) url.searchParams.append(name, value)
    const response = await fetch(url, {
      method,
      headers: { ...this.headers, ...(json === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
      ...(body === undefined ? {} : { body }),
      ...(signal === undefined ? {} : { signal }),
      // A body that is a stream needs it.
      ...({ duplex: 'half' } as object),
    })
    const bytes = Buffer.from(await response.arrayBuffer())
    return { status: response.status, headers: response.headers, bytes, json: () => JSON.parse(bytes.toString()) }
  }

  /** The answer's body; anything but a success is an error of the test. */
  async json<T>(method: string, path: string, options: CallOptions = {}): Promise<T> {
    const answer = await this.call(method, path, options)
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${answer.bytes.toString()}`)
    return answer.status === 204 ? (undefined as T) : answer.json<T>()
  }

  /** What a call that must fail says. */
  async refusal(method: string, path: string, options: CallOptions = {}): Promise<Refusal> {
    const answer = await this.call(method, path, options)
    if (answer.status < 400) throw new Error(`${method} ${path} answered ${answer.status}, not an error.`)
    const { error } = answer.json<{ error: { code: string; message: string } }>()
    return { status: answer.status, code: error.code, message: error.message }
  }

  /** Creates a capsule and waits until it runs; disposing destroys it. */
  async create(request: CreateCapsuleRequest = {}): Promise<TestCapsule> {
    const made = await this.json<Capsule>('POST', '/v1/capsules', { json: request, query: { wait_sec: '120' } })
    const capsule = new TestCapsule(this, made)
    if (made.state !== 'running') await capsule.untilState('running')
    return capsule
  }

  async list(query: Query = {}): Promise<Capsule[]> {
    return await this.json<Capsule[]>('GET', '/v1/capsules', { query })
  }
}

const PATIENCE_SEC = 120
const LONG_WAIT = { wait_sec: String(PATIENCE_SEC) }

/** A capsule of a test. */
export class TestCapsule implements AsyncDisposable {
  readonly id: string
  readonly path: string

  constructor(
    readonly api: Api,
    /** The create's answer. */
    readonly made: Capsule,
  ) {
    this.id = made.id
    this.path = `/v1/capsules/${made.id}`
  }

  async get(): Promise<Capsule> {
    return await this.api.json<Capsule>('GET', this.path)
  }

  async untilState(state: Capsule['state'], timeoutMs?: number): Promise<Capsule> {
    return await this.until(state, (now) => now.state === state, timeoutMs)
  }

  /** Waits until its record is as wanted; `what` says so in the error. */
  async until(what: string, wanted: (now: Capsule) => boolean, timeoutMs?: number): Promise<Capsule> {
    let now = this.made
    return await eventually(
      () => `${this.id} to be ${what}; last seen: ${JSON.stringify(now)}`,
      async () => {
        now = await this.get()
        return wanted(now) ? now : undefined
      },
      timeoutMs,
    )
  }

  async exec(cmd: string, args: readonly string[] = [], options: Partial<ExecRequest> = {}): Promise<ExecResult> {
    return await this.api.json<ExecResult>('POST', `${this.path}/exec`, { json: { cmd, args: [...args], ...options } })
  }

  /** A shell line. */
  async sh(line: string, options: Partial<ExecRequest> = {}): Promise<ExecResult> {
    return await this.exec('/bin/sh', ['-c', line], options)
  }

  /** What a shell line that must succeed prints, without the newline at its end; however slow the machine is. */
  async text(line: string, options: Partial<ExecRequest> = {}): Promise<string> {
    const result = await this.sh(line, { timeout_sec: PATIENCE_SEC, ...options })
    if (result.exit_code !== 0)
      throw new Error(`\`${line}\` ended with ${result.exit_code}: ${result.stdout}${result.stderr}`)
    return result.stdout.trimEnd()
  }

  async background(line: string, options: Partial<ExecRequest> = {}): Promise<BackgroundResult> {
    const json = { cmd: '/bin/sh', args: ['-c', line], background: true, ...options }
    return await this.api.json<BackgroundResult>('POST', `${this.path}/exec`, { json })
  }

  /** A shell line that ends the guest, which may be gone before its agent can say that the line runs. */
  async endBy(line: string): Promise<void> {
    const json = { cmd: '/bin/sh', args: ['-c', line], background: true }
    const answer = await this.api.call('POST', `${this.path}/exec`, { json })
    if (answer.status >= 300 && !answer.bytes.includes('"guest_died"'))
      throw new Error(`A line that ends the guest: ${answer.status} ${answer.bytes.toString()}`)
  }

  /** Waits until a process of that tag runs. */
  async untilRuns(tag: string): Promise<void> {
    await eventually(`the process ${tag} to run`, async () => {
      const { processes } = await this.api.json<ProcessList>('GET', `${this.path}/processes`)
      return processes.some((one) => one.tag === tag) ? true : undefined
    })
  }

  async file<T>(verb: string, json: object): Promise<T> {
    return await this.api.json<T>('POST', `${this.path}/files/${verb}`, { json })
  }

  async write(
    path: string,
    body: NonNullable<RequestInit['body']>,
    query: Query = {},
    conditions: Readonly<Record<string, string>> = {},
  ): Promise<Answer> {
    const headers = { 'content-type': 'application/octet-stream', ...conditions }
    return await this.api.call('PUT', `${this.path}/files`, { query: { path, ...query }, body, headers })
  }

  async read(path: string, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
    return await this.api.call('GET', `${this.path}/files`, { query: { path }, headers })
  }

  async pause(): Promise<Capsule> {
    return await this.#move('pause')
  }

  async resume(): Promise<Capsule> {
    return await this.#move('resume')
  }

  /** Waits for its end on a machine of any speed. */
  async #move(verb: string): Promise<Capsule> {
    return await this.api.json<Capsule>('POST', `${this.path}/${verb}`, { query: LONG_WAIT })
  }

  /** Running copies; the caller destroys them. */
  async fork(request: ForkRequest = {}): Promise<{ readonly result: ForkResult; readonly copies: TestCapsule[] }> {
    const result = await this.api.json<ForkResult>('POST', `${this.path}/fork`, { json: request, query: LONG_WAIT })
    return { result, copies: result.capsules.map((copy) => new TestCapsule(this.api, copy)) }
  }

  async checkpoint(name?: string): Promise<Checkpoint> {
    return await this.api.json<Checkpoint>('POST', `${this.path}/checkpoints`, { json: { name }, query: LONG_WAIT })
  }

  async checkpoints(): Promise<Checkpoint[]> {
    return await this.api.json<Checkpoint[]>('GET', `${this.path}/checkpoints`)
  }

  async untilCheckpoint(name: string, wanted: (checkpoint: Checkpoint) => boolean): Promise<Checkpoint> {
    return await eventually(`the checkpoint ${name} to be as wanted`, async () =>
      (await this.checkpoints()).find((one) => one.name === name && wanted(one)),
    )
  }

  async rollback(checkpoint: string): Promise<Capsule> {
    return await this.#move(`checkpoints/${checkpoint}/rollback`)
  }

  async destroy(): Promise<void> {
    await this.api.json('DELETE', this.path)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy()
  }
}

/** The platform of this run, and its API. */
export function usePlatform(): { readonly platform: Platform; readonly api: Api } {
  const platform = inject('platform')
  return { platform, api: new Api(platform) }
}

/** One capsule for all tests of a file that do not harm it. */
export function useCapsule(request: CreateCapsuleRequest = {}): () => TestCapsule {
  let capsule: TestCapsule | undefined
  beforeAll(async () => {
    capsule = await usePlatform().api.create(request)
  })
  afterAll(async () => {
    await capsule?.destroy()
  })
  return () => {
    if (capsule === undefined) throw new Error('The capsule exists once the tests run.')
    return capsule
  }
}
