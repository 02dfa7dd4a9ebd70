import { createSecureContext, type SecureContext } from 'node:tls'
import { errorText, type Logger, type Tracer } from '@wrenn/base'
import type { Credentials } from '@wrenn/certificates'
import type { Hosts } from '../../host/hosts.js'
import { linkHost } from '../../host/link.js'
import { type HostTarget, RemoteHost } from '../../host/remote-host.js'
import type { Db } from '../../store/database.js'
import { listCalledHosts } from '../../store/joined-hosts.js'
import { Rounds } from '../rounds.js'
import type { HostAuthority, HostTrust } from './host-authority.js'

/** Looking at thousands of hosts takes so much of the time at most. */
const PART_OF_TIME = 1 / 20
const TIDY_EVERY_MS = 3600 * 1000

interface HostWatchDeps {
  readonly db: Db
  readonly authority: HostAuthority
  readonly hosts: Hosts
  readonly logger: Logger
  readonly tracer: Tracer
  readonly lookEveryMs: number
}

/** A host that has joined, and how it is called. */
interface Watched {
  readonly remote: RemoteHost
  known?: HostTarget | undefined
}

/** Keeps which hosts a control plane calls, and by what it knows each, as the database has it. */
export class HostWatch {
  readonly #deps: HostWatchDeps
  readonly #rounds: Rounds
  readonly #watched = new Map<string, Watched>()
  #context: { readonly cert: string; readonly trusted: string; readonly context: SecureContext } | undefined
  /** By the clock that is never set, as the next. */
  #notBefore = 0
  #tidiedAt = Number.NEGATIVE_INFINITY

  constructor(deps: HostWatchDeps) {
    this.#deps = deps
    const onFailure = (error: unknown) => deps.logger.warn({ error: errorText(error) }, 'host.not_looked_up')
    this.#rounds = new Rounds(() => this.look(), deps.lookEveryMs, onFailure)
  }

  /** Looks for the first time before it returns, so that the first calls find their host. */
  async start(): Promise<void> {
    await this.look().catch((error: unknown) => {
      this.#deps.logger.warn({ error: errorText(error) }, 'host.not_looked_up')
    })
    this.#rounds.start()
  }

  async stop(): Promise<void> {
    await this.#rounds.stop()
  }

  /** Once, now. */
  async look(): Promise<void> {
    const { db, authority } = this.#deps
    const startedAt = performance.now()
    if (startedAt < this.#notBefore) return
    const joined = await listCalledHosts(db)
    this.#forgetAllBut(new Set(joined.map(({ id }) => id)))
    if (joined.length === 0) return
    if (performance.now() - this.#tidiedAt > TIDY_EVERY_MS) {
      this.#tidiedAt = performance.now()
      await authority.tidy()
    }
    const { hostName } = await import('@wrenn/certificates')
    const context = this.#contextOf(await authority.credentials(), await authority.trust())
    for (const host of joined) {
      const watched = this.#watch(host)
      if (host.address === null || host.revoked_at !== null) {
        watched.known = undefined
        watched.remote.aim(undefined)
        continue
      }
      const { id: hostId, address } = host
      const era = host.joined_at.toISOString()
      const { known } = watched
      if (known?.context !== context || known.address !== address || known.era !== era) {
        watched.known = { address, name: hostName(hostId), era, context }
      }
      watched.remote.aim(watched.known)
    }
    const tookMs = performance.now() - startedAt
    this.#notBefore = startedAt + tookMs / PART_OF_TIME
  }

  /** One for all hosts: each is some tens of kilobytes. */
  #contextOf(credentials: Credentials, trust: HostTrust): SecureContext {
    const { cert } = credentials
    const before = this.#context
    if (before?.cert === cert && before.trusted === trust.fingerprint) return before.context
    const context = createSecureContext({ ...credentials, ...secured(trust), minVersion: 'TLSv1.3' })
    this.#context = { cert, trusted: trust.fingerprint, context }
    return context
  }

  /** One that is trusted no more stays: it is called no more, and may join again. */
  #watch({ id }: { readonly id: string }): Watched {
    const before = this.#watched.get(id)
    if (before !== undefined) return before
    const watched: Watched = { remote: new RemoteHost() }
    this.#watched.set(id, watched)
    this.#deps.hosts.add(linkHost(watched.remote, { joinedId: id, tracer: this.#deps.tracer }))
    return watched
  }

  #forgetAllBut(ids: ReadonlySet<string>): void {
    for (const [id, { remote }] of this.#watched) {
      if (ids.has(id)) continue
      this.#watched.delete(id)
      remote.aim(undefined)
      this.#deps.hosts.remove(id)
    }
  }
}

function secured({ authorities, revocations }: HostTrust) {
  return { ca: [...authorities], crl: [...revocations] }
}
