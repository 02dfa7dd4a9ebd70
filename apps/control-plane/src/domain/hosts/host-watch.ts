import { createSecureContext } from 'node:tls'
import { errorText, type Logger } from '@wrenn/base'
import type { HostTarget, RemoteHost } from '../../host/remote-host.js'
import type { Db } from '../../store/database.js'
import { listJoinedHosts } from '../../store/joined-hosts.js'
import { Rounds } from '../rounds.js'
import type { HostAuthority, HostTrust } from './host-authority.js'

const TIDY_EVERY_MS = 3600 * 1000

interface HostWatchDeps {
  readonly db: Db
  readonly authority: HostAuthority
  readonly remoteHost: RemoteHost
  readonly logger: Logger
  readonly lookEveryMs: number
}

/** Keeps whom a control plane calls, and by what it knows that host, as the database has it. */
export class HostWatch {
  readonly #deps: HostWatchDeps
  readonly #rounds: Rounds
  #known: { readonly fingerprint: string; readonly target: HostTarget } | undefined
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
    const { db, authority, remoteHost } = this.#deps
    const host = (await listJoinedHosts(db)).find((each) => each.joined_at !== null && each.revoked_at === null)
    if (host === undefined || host.address === null) {
      this.#known = undefined
      remoteHost.aim(undefined)
      return
    }
    if (performance.now() - this.#tidiedAt > TIDY_EVERY_MS) {
      this.#tidiedAt = performance.now()
      await authority.tidy()
    }
    const { hostName } = await import('@wrenn/certificates')
    const [credentials, trust] = [await authority.credentials(), await authority.trust()]
    const { id: hostId, address } = host
    const era = host.joined_at?.toISOString() ?? ''
    const fingerprint = [hostId, address, era, credentials.cert, trust.fingerprint].join('\n')
    if (this.#known?.fingerprint !== fingerprint) {
      const context = createSecureContext({ ...credentials, ...secured(trust), minVersion: 'TLSv1.3' })
      this.#known = { fingerprint, target: { address, name: hostName(hostId), era, context } }
    }
    remoteHost.aim(this.#known.target)
  }
}

function secured({ authorities, revocations }: HostTrust) {
  return { ca: [...authorities], crl: [...revocations] }
}
