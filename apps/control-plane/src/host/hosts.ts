import { Code, ConnectError, createClient, type Transport } from '@connectrpc/connect'
import { AppError } from '@wrenn/base'
import { type Capsule, HostService, type Template } from '@wrenn/protocol/host'
import { isAway, notSent } from './errors.js'
import { type Host, HostCalls } from './host.js'
import type { HostLink } from './link.js'
import { type Named, namedBy } from './named.js'
import type { HostClient } from './transport.js'
import type { OpenTunnel } from './tunnel.js'

/** Which host has a capsule seldom changes: so many are remembered, each until a call to it fails. */
const REMEMBERED = 20_000
/** So many hosts are asked for templates at once. */
const ASKED = 8
const MERGED_CACHE_MS = 1_000
/** For a host that is asked whether it has a capsule. */
const ASK_TIMEOUT_MS = 3_000

/** What a host has of a capsule. */
export interface HostCopy {
  readonly host: Host
  readonly capsule: Capsule
}

/** What is recorded of where capsules and snapshots are. All that are asked throw an AppError, `database_unavailable` when nobody can say now. */
export interface Whereabouts {
  /** `undefined`: there is no such thing. `null`: it is on no host yet, as far as is known. */
  hostOf(named: Named): Promise<string | null | undefined>
  /** Whether a capsule that is on no host yet may be on any of them: one that hibernates is on none, whatever a host still has of it. */
  isUnplaced(capsuleId: string): Promise<boolean>
  /** Whether a host was removed: nothing of it comes back. */
  isGone(hostId: string): Promise<boolean>
  /** Whether what was found is still so, unless `forget` says otherwise. @default yes */
  isFresh?(): boolean
}

/**
 * The hosts of a platform: the one that it has alone, or all machines that have joined, which come and go. A call is made to the host that has what the
 * call names; what names nothing is called on a {@link Host}.
 */
export class Hosts extends HostCalls {
  readonly client: HostClient
  readonly #whereabouts: Whereabouts | undefined
  /** By what they have joined as; the only one by nothing. */
  readonly #links = new Map<string | undefined, HostLink>()
  readonly #known = new Map<string, string>()
  /** Grows with each move; what was looked up before one is not remembered after it. */
  #version = 0
  readonly #listeners = new Set<() => void>()
  /** Of so many hosts that finding it takes a while. */
  #merged: { readonly list: readonly Template[]; readonly untilMs: number } | undefined

  private constructor(whereabouts: Whereabouts | undefined, only?: HostLink) {
    super()
    this.#whereabouts = whereabouts
    if (only !== undefined) this.#links.set(undefined, only)
    this.client = only?.host.client ?? createClient(HostService, this.#transport())
  }

  /** One host that has all capsules. */
  static only(link: HostLink): Hosts {
    return new Hosts(undefined, link)
  }

  /** Those that join, by `add`. */
  static joining(whereabouts: Whereabouts): Hosts {
    return new Hosts(whereabouts)
  }

  get all(): readonly Host[] {
    return [...this.#links.values()].map(({ host }) => host)
  }

  /** The one that has all capsules, where there is such a one. */
  get only(): Host | undefined {
    return this.#links.get(undefined)?.host
  }

  get(joinedId: string): Host | undefined {
    return this.#links.get(joinedId)?.host
  }

  /** Calls of the host of a row, without a look where that is. */
  of({ host_id: hostId }: { readonly host_id: string | null }): HostCalls {
    return (hostId === null ? undefined : this.get(hostId)) ?? this
  }

  add(link: HostLink): void {
    this.#links.set(link.host.joinedId, link)
    this.#tell()
  }

  /** Calls to it end, and there are no more. */
  remove(joinedId: string): void {
    const link = this.#links.get(joinedId)
    if (!this.#links.delete(joinedId)) return
    link?.close()
    this.#tell()
  }

  /** A capsule is, or may be, on another host than before; without an id, any of them. */
  forget(capsuleId?: string): void {
    this.#version++
    if (capsuleId === undefined) this.#known.clear()
    else this.#known.delete(capsuleId)
  }

  /** Tells when there are other hosts than before. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener)
  }

  close(): void {
    for (const link of this.#links.values()) link.close()
  }

  /** As each host said last, once one of them answers now: silent ones are not waited for, and of many some are asked, as each is when it is compared. */
  async templates(): Promise<readonly Template[]> {
    const { all } = this
    if (all.length === 0) throw noHost()
    if (this.#merged !== undefined && this.#merged.untilMs > performance.now()) return this.#merged.list
    const heard = all.filter(({ isSilent }) => !isSilent)
    const first = await firstOf(someOf(heard.length === 0 ? all : heard))
    if (all.length === 1) return first
    const list = merged(all)
    if (all.length > ASKED) this.#merged = { list, untilMs: performance.now() + MERGED_CACHE_MS }
    return list
  }

  /** To the host of the capsule. */
  readonly openTunnel: OpenTunnel = async (target, signal) => {
    const link = await this.#linkOf({ kind: 'capsule', id: target.capsuleId }).catch((error: unknown) => {
      throw AppError.is(causeOf(error)) ? causeOf(error) : error
    })
    return await link.openTunnel(target, signal)
  }

  #transport(): Transport {
    return {
      unary: async (method, signal, timeoutMs, header, message, values) => {
        const named = namedBy(message)
        try {
          const { transport } = await this.#linkOf(named)
          return await transport.unary(method, signal, timeoutMs, header, message, values)
        } catch (error) {
          if (named !== undefined) this.#known.delete(named.id)
          throw error
        }
      },
      stream: async (method, signal, timeoutMs, header, messages, values) => {
        const rest = messages[Symbol.asyncIterator]()
        const first = await rest.next()
        const { transport } = await this.#linkOf(namedBy(first.value))
        return await transport.stream(method, signal, timeoutMs, header, continued(first, rest), values)
      },
    }
  }

  async #linkOf(named: Named | undefined): Promise<HostLink> {
    const only = this.#links.get(undefined)
    if (only !== undefined) return only
    if (named === undefined) throw new Error('a call that names nothing is one of a host')
    const hostId = await this.#hostOf(named)
    if (hostId === undefined) throw away('There is no host that has it, as far as is known.')
    const link = this.#links.get(hostId)
    if (link !== undefined) return link
    if (await this.#whereabouts?.isGone(hostId)) throw notThere(named)
    throw this.#links.size === 0 ? awayBy(noHost()) : away(`Its host, ${hostId}, is not known here now.`)
  }

  /** Also of what was recorded before its host had said which one it is, where there is but one. @throws AppError for what there is not */
  async #hostOf(named: Named): Promise<string | undefined> {
    const known = this.#whereabouts?.isFresh?.() === false ? undefined : this.#known.get(named.id)
    if (known !== undefined) return known
    const version = this.#version
    const recorded = await this.#said(this.#whereabouts?.hostOf(named))
    if (recorded === undefined) throw notThere(named)
    // Nobody tells when that is recorded.
    if (recorded === null) return await this.#unrecorded(named)
    // It may have moved during the look.
    if (version !== this.#version) return recorded
    this.#known.set(named.id, recorded)
    const [oldest] = this.#known.keys()
    if (this.#known.size > REMEMBERED && oldest !== undefined) this.#known.delete(oldest)
    return recorded
  }

  /** What keeps it from being said is as a connection that cannot be made. */
  async #said<T>(answer: Promise<T> | undefined): Promise<T | undefined> {
    try {
      return await answer
    } catch (error) {
      throw isAway(error) ? awayBy(error) : error
    }
  }

  /** Of what was recorded before its host had said which one it is. */
  async #unrecorded(named: Named): Promise<string | undefined> {
    if (this.#links.size === 1) return [...this.#links.keys()][0]
    if (named.kind !== 'capsule' || this.#links.size === 0) return undefined
    if ((await this.#said(this.#whereabouts?.isUnplaced(named.id))) !== true) return undefined
    const host = await this.#said(this.whoHas(named.id))
    if (host === undefined) throw notThere(named)
    return host.joinedId
  }

  /**
   * Asks all hosts for a capsule of which is not recorded where it is. `undefined`: all have answered, and none has it.
   * @throws AppError `host_unavailable` while none says that it has it and one does not answer
   */
  async whoHas(capsuleId: string): Promise<Host | undefined> {
    if (this.#links.size === 0) throw noHost()
    const answers = await Promise.allSettled(
      this.all.map(async (host) => ({ host, has: (await capsuleOn(host, capsuleId)) !== undefined })),
    )
    const said = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []))
    const found = said.find(({ has }) => has)
    const silence = answers.find((answer) => answer.status === 'rejected')
    if (found === undefined && silence !== undefined) {
      throw new AppError('host_unavailable', 'It may be on a host that does not answer now.', { cause: silence.reason })
    }
    return found?.host
  }

  /**
   * What all hosts have of a capsule, for whoever must not believe one alone.
   * @throws AppError `host_unavailable` while one of them does not answer
   */
  async copiesOf(capsuleId: string): Promise<readonly HostCopy[]> {
    const asked = this.all.map(async (host) => ({ host, capsule: await capsuleOn(host, capsuleId) }))
    try {
      return (await Promise.all(asked)).flatMap(({ host, capsule }) => (capsule === undefined ? [] : { host, capsule }))
    } catch (cause) {
      throw new AppError('host_unavailable', 'A host does not answer that may have it, too.', { cause })
    }
  }

  #tell(): void {
    for (const listener of this.#listeners) listener()
  }
}

/** Some that follow each other, from anywhere on. */
function someOf(hosts: readonly Host[]): readonly Host[] {
  if (hosts.length <= ASKED) return hosts
  const at = Math.floor(Math.random() * hosts.length)
  return [...hosts.slice(at, at + ASKED), ...hosts.slice(0, Math.max(0, at + ASKED - hosts.length))]
}

/** @throws what the first of them says when none answers */
async function firstOf(hosts: readonly Host[]): Promise<readonly Template[]> {
  try {
    return await Promise.any(hosts.map((host) => host.templates()))
  } catch (error) {
    throw error instanceof AggregateError ? error.errors[0] : error
  }
}

async function capsuleOn(host: Host, capsuleId: string): Promise<Capsule | undefined> {
  try {
    return (await host.call((client) => client.getCapsule({ capsuleId }, { timeoutMs: ASK_TIMEOUT_MS }))).capsule
  } catch (error) {
    if (AppError.is(error, 'capsule_not_found', 'not_found')) return undefined
    throw error
  }
}

/** Of a name that several hosts have, the one that is made already. */
function merged(hosts: readonly Host[]): readonly Template[] {
  const byName = new Map<string, Template>()
  for (const template of hosts.flatMap(({ knownTemplates }) => knownTemplates)) {
    const other = byName.get(template.name)
    if (other === undefined || other.sizeBytes === 0n) byName.set(template.name, template)
  }
  return [...byName.values()]
}

async function* continued<T>(first: IteratorResult<T>, rest: AsyncIterator<T>): AsyncGenerator<T> {
  try {
    for (let next = first; next.done !== true; next = await rest.next()) yield next.value
  } finally {
    await rest.return?.()
  }
}

/** Nobody can be asked. */
export function noHost(): AppError {
  return notSent('No host has joined this platform yet.')
}

function notThere({ kind, id }: Named): AppError {
  if (kind === 'capsule') return new AppError('capsule_not_found', `No host has the capsule ${id}.`)
  return new AppError('template_not_found', `No host has the snapshot ${id}.`)
}

/** As a connection that cannot be made, so that whoever waits for a host waits for this one. */
function away(message: string): ConnectError {
  return awayBy(notSent(message))
}

function awayBy(error: AppError): ConnectError {
  return new ConnectError(error.message, Code.Unavailable, undefined, undefined, error)
}

function causeOf(error: unknown): unknown {
  return error instanceof ConnectError ? error.cause : undefined
}
