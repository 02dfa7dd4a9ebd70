import type * as wire from '@wrenn/protocol'
import { randomName } from './bytes.js'
import { Capsule } from './capsule.js'
import { capsuleInfo } from './convert.js'
import type { EgressWish } from './egress.js'
import { createError } from './errors.js'
import type { CallOptions, Transport } from './transport.js'
import type { CapsuleInfo, CapsuleState, PortAccess } from './types.js'
import { delay, wholeSeconds } from './wait.js'

const CREATE_TIMEOUT_MS = 180_000
/** One answer waits this long at most; then we ask again. Proxies in between like short answers. */
const ANSWER_WAIT_SEC = 20
const POLL_MS = 250

/** What a new capsule is. More than the platform allows is `invalid_request`, more than the team may have is LimitError. */
export interface CreateOptions extends CallOptions {
  /** A base template, or a snapshot of yours, whose sizes it then has. @default 'minimal' */
  readonly template?: string
  /** For people, up to 128 characters; need not be unique. */
  readonly name?: string
  /** At most 64 of yours, to filter lists by; keys of 1 to 63 characters, values up to 256. */
  readonly labels?: Readonly<Record<string, string>>
  /** Environment of every command: 128 KiB each with its name, 256 KiB together. */
  readonly envs?: Readonly<Record<string, string>>
  /** @default what the template asks for */
  readonly vcpus?: number
  /** At least 128. @default what the template asks for */
  readonly memoryMib?: number
  /** Writable space beside the template's, at least 64. @default 5120 */
  readonly diskSizeMib?: number
  /** Pause it after this time without activity; 0 means never. @default 0 */
  readonly idleTimeoutMs?: number
  /**
   * Wake it when it is used while paused: commands, files, terminals, its ports. The REST API's own default is false.
   * @default true
   */
  readonly autoResume?: boolean
  /** Who may reach its ports by their URLs: whoever knows its id, or whoever has its token. @default 'public' */
  readonly portAccess?: PortAccess
  /**
   * What it may reach: `internet` for public addresses, IPv4 addresses and CIDR ranges in `allow` and `deny`, of which
   * `allow` wins. Private ranges must be named in `allow`; the host and other capsules are out of reach whatever it says. Headers in
   * `rules` are set on the way to their hosts, so that no token is in the guest.
   * @default public addresses only
   */
  readonly egress?: EgressWish
  /** Default user of commands and files. @default root */
  readonly user?: string
  /** Default directory of commands; relative to the user's home. @default that home */
  readonly cwd?: string
  /** Only a host that has all of these tags runs it. @default any */
  readonly hostTags?: readonly string[]
  /** Longest wait until it runs; after that it is destroyed. @default 180_000 */
  readonly createTimeoutMs?: number
}

/** Which capsules are listed; filters that are given must all match. */
export interface ListCapsulesOptions extends CallOptions {
  /** @default all but stopped and error */
  readonly states?: readonly CapsuleState[] | 'all'
  /** Exact, as capsules show it. */
  readonly template?: string
  /** Exact. */
  readonly name?: string
  /** Asked for in pages of this many, 1 to 1000. @default 100 */
  readonly pageSize?: number
}

/** Makes and finds the team's capsules. Use it as `wrenn.capsules`. */
export class Capsules {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /**
   * Creates a capsule and waits until it runs. A capsule that never does is destroyed, so nothing is left behind.
   * @example
   * await using capsule = await wrenn.capsules.create({ memoryMib: 1024, idleTimeoutMs: 5 * 60_000 })
   * @throws TimeoutError after `createTimeoutMs`; WrennError when it could not start.
   */
  async create(options: CreateOptions = {}): Promise<Capsule> {
    const { createTimeoutMs = CREATE_TIMEOUT_MS, signal, requestTimeoutMs, ...wanted } = options
    const call = { ...(signal ? { signal } : {}), ...(requestTimeoutMs === undefined ? {} : { requestTimeoutMs }) }
    const deadline = performance.now() + createTimeoutMs
    const first = await this.#transport.json<wire.Capsule>('POST', '/v1/capsules', {
      ...call,
      query: { wait_sec: Math.min(ANSWER_WAIT_SEC, Math.ceil(createTimeoutMs / 1000)) },
      json: createBody(wanted),
      // With its key a repeated request finds the first one's capsule instead of making a second.
      headers: { 'Idempotency-Key': randomName('create') },
      idempotent: true,
    })
    const capsule = new Capsule(this.#transport, capsuleInfo(first))
    try {
      await untilRunning(capsule, deadline, createTimeoutMs, call)
      return capsule
    } catch (error) {
      await capsule.destroy().catch(() => {})
      throw error
    }
  }

  /** @throws CapsuleNotFoundError */
  async get(id: string, options: CallOptions = {}): Promise<Capsule> {
    const path = `/v1/capsules/${encodeURIComponent(id)}`
    return new Capsule(this.#transport, capsuleInfo(await this.#transport.json<wire.Capsule>('GET', path, options)))
  }

  /**
   * Newest first, page after page.
   * @example
   * for await (const { id, state } of wrenn.capsules.list({ states: ['running', 'paused'] })) console.log(id, state)
   */
  async *list(options: ListCapsulesOptions = {}): AsyncGenerator<CapsuleInfo, void, undefined> {
    const { states, template, name, pageSize = 100, ...call } = options
    const status = typeof states === 'string' ? states : states?.join(',')
    let cursor: string | undefined
    do {
      const query = { status, template, name, limit: pageSize, cursor }
      const response = await this.#transport.request('GET', '/v1/capsules', { ...call, query })
      const page: wire.Capsule[] = await response.json()
      for (const capsule of page) yield capsuleInfo(capsule)
      cursor = response.headers.get('x-next-token') || undefined
    } while (cursor)
  }
}

function createBody(options: Omit<CreateOptions, keyof CallOptions | 'createTimeoutMs'>): wire.CreateCapsuleRequest {
  const { memoryMib, diskSizeMib, idleTimeoutMs, autoResume = true, portAccess, hostTags, ...same } = options
  return {
    ...same,
    labels: { ...same.labels },
    envs: { ...same.envs },
    auto_resume: autoResume,
    ...(portAccess === undefined ? {} : { port_access: portAccess }),
    ...(hostTags === undefined ? {} : { host_tags: [...hostTags] }),
    ...(memoryMib === undefined ? {} : { memory_mb: memoryMib }),
    ...(diskSizeMib === undefined ? {} : { disk_size_mb: diskSizeMib }),
    ...(idleTimeoutMs === undefined ? {} : { timeout_sec: wholeSeconds(idleTimeoutMs) }),
  }
}

async function untilRunning(capsule: Capsule, deadline: number, timeoutMs: number, call: CallOptions): Promise<void> {
  for (let { info } = capsule; info.state !== 'running'; info = await capsule.refresh(call)) {
    if (info.state !== 'pending' && info.state !== 'starting') {
      const why = info.exit?.message ?? `it is ${info.state}`
      throw createError(`The capsule did not start: ${why}`, { code: 'engine_failure', details: { ...info.exit } })
    }
    if (performance.now() > deadline) {
      throw createError(`The capsule did not run within ${timeoutMs} ms (createTimeoutMs).`, { code: 'timeout' })
    }
    await delay(POLL_MS, call.signal)
  }
}
