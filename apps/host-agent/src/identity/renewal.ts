import { setTimeout as delay } from 'node:timers/promises'
import { AppError, errorText, type Logger, requireFitting } from '@wrenn/base'
import { createCertificateRequest, isDueForRenewal } from '@wrenn/certificates'
import { type HostIdentity, writeIdentity } from './identity-file.js'
import { askForCredentials } from './platform-call.js'

const LOOK_EVERY_MS = 10 * 60_000

interface RenewalOptions {
  readonly dir: string
  readonly identity: HostIdentity
  readonly logger: Logger
  /** Told of each new one, once it is kept. */
  readonly onRenewed: (identity: HostIdentity) => void
  /** @default 600 000 */
  readonly lookEveryMs?: number
  /** @default the time of this machine */
  readonly now?: () => Date
}

/** Gets the next certificate of this host, for another key, when two thirds of the life of the one before are over. */
export class IdentityRenewal {
  readonly #options: RenewalOptions
  readonly #abort = new AbortController()
  #identity: HostIdentity
  #done: Promise<void> = Promise.resolve()

  constructor(options: RenewalOptions) {
    this.#options = options
    this.#identity = options.identity
  }

  start(): void {
    this.#done = this.#repeat()
  }

  async stop(): Promise<void> {
    this.#abort.abort()
    await this.#done
  }

  /** Renews when it is time. What fails is told, and tried again at the next look. */
  async look(): Promise<void> {
    const { now, logger } = this.#options
    if (!isDueForRenewal(this.#identity.certificate, now?.())) return
    try {
      await this.#renew()
      logger.info({ hostId: this.#identity.hostId }, 'host_identity.renewed')
    } catch (error) {
      if (this.#abort.signal.aborted) return // the same key is asked for at the next start
      const isRefused = AppError.is(error, 'host_not_trusted')
      logger.error({ error: errorText(error) }, isRefused ? 'host_identity.refused' : 'host_identity.not_renewed')
    }
  }

  async #renew(): Promise<void> {
    const { dir, onRenewed } = this.#options
    let identity = this.#identity
    if (identity.pending === undefined) {
      identity = { ...identity, pending: await createCertificateRequest() }
      // Before it is asked for: whoever asks twice for one token must have the same key.
      await writeIdentity(dir, identity)
      this.#identity = identity
    }
    const { pending, ...before } = identity
    if (pending === undefined) return
    const body = { refresh_token: identity.refreshToken, csr: pending.request }
    const answer = await askForCredentials(identity, '/v1/hosts/auth/refresh', body, this.#abort.signal)
    requireFitting({ cert: answer.cert_pem, key: pending.key }, { cert: "The platform's answer", key: 'the new key' })
    const renewed = {
      ...{ ...before, key: pending.key, certificate: answer.cert_pem, authorities: answer.ca_cert_pem },
      refreshToken: answer.refresh_token,
    }
    await writeIdentity(dir, renewed)
    this.#identity = renewed
    onRenewed(renewed)
  }

  async #repeat(): Promise<void> {
    const { signal } = this.#abort
    while (!signal.aborted) {
      await this.look()
      await delay(this.#options.lookEveryMs ?? LOOK_EVERY_MS, undefined, { signal }).catch(() => {})
    }
  }
}
