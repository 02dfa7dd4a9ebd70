import { createSecureContext } from 'node:tls'
import { errorText, type Logger, type Tracer } from '@wrenn/base'
import type { Hosts } from '../../host/hosts.js'
import { linkHost } from '../../host/link.js'
import { type HostTarget, RemoteHost } from '../../host/remote-host.js'
import type { Db } from '../../store/database.js'
import { type KnownJoinedHost, listJoinedHosts } from '../../store/joined-hosts.js'
import { Rounds } from '../rounds.js'
import type { HostAuthority, HostTrust } from './host-authority.js'

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
  known?: { readonly fingerprint: string; readonly target: HostTarget } | undefined
}

/** Keeps which hosts a control plane calls, and by what it knows each, as the database has it. */
export class HostWatch {
  readonly #deps: HostWatchDeps
  readonly #rounds: Rounds
  readonly #watched = new Map<string, Watched>()
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
    const joined = (await listJoinedHosts(db)).filter((each) => each.joined_at !== null)
    this.#forgetAllBut(new Set(joined.map(({ id }) => id)))
    if (joined.length === 0) return
    if (performance.now() - this.#tidiedAt > TIDY_EVERY_MS) {
      this.#tidiedAt = performance.now()
      await authority.tidy()
    }
    const { hostName } = await import('@wrenn/certificates')
    const [credentials, trust] = [await authority.credentials(), await authority.trust()]
    for (const host of joined) {
      const watched = this.#watch(host)
      if (host.address === null || host.revoked_at !== null) {
        watched.known = undefined
        watched.remote.aim(undefined)
        continue
      }
      const { id: hostId, address } = host
      const era = host.joined_at?.toISOString() ?? ''
      const fingerprint = [hostId, address, era, credentials.cert, trust.fingerprint].join('\n')
      if (watched.known?.fingerprint !== fingerprint) {
        const context = createSecureContext({ ...credentials, ...secured(trust), minVersion: 'TLSv1.3' })
        watched.known = { fingerprint, target: { address, name: hostName(hostId), era, context } }
      }
      watched.remote.aim(watched.known.target)
    }
  }

  /** One that is trusted no more stays: it is called no more, and may join again. */
  #watch({ id }: KnownJoinedHost): Watched {
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
