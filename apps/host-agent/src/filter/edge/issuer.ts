import { createSecureContext, type SecureContext } from 'node:tls'
import { type Credentials, isSoonOver, issueHostCertificate } from '@wrenn/certificates'

const MAXIMUM_CONTEXTS = 1024

interface Issued {
  readonly context: SecureContext
  readonly cert: string
}

/** Certificates for hosts, each made once. */
export class Issuer {
  /** Oldest use first. */
  readonly #issued = new Map<string, Promise<Issued>>()

  async contextFor(authority: Credentials, host: string): Promise<SecureContext> {
    const key = `${host} ${authority.cert}`
    const known = await this.#issued.get(key)
    const issued = known === undefined || isSoonOver(known.cert) ? issue(authority, host) : Promise.resolve(known)
    this.#issued.delete(key)
    this.#issued.set(key, issued)
    const [oldest] = this.#issued.keys()
    if (this.#issued.size > MAXIMUM_CONTEXTS && oldest !== undefined) this.#issued.delete(oldest)
    issued.catch(() => this.#issued.delete(key)) // the caller hears of it
    return (await issued).context
  }
}

async function issue(authority: Credentials, host: string): Promise<Issued> {
  const { cert, key } = await issueHostCertificate(authority, host)
  return { context: createSecureContext({ cert, key, minVersion: 'TLSv1.2' }), cert }
}
