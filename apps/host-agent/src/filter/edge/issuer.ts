import { createSecureContext, type SecureContext } from 'node:tls'
import { type Credentials, isSoonOver, issueHostCertificate } from '@wrenn/certificates'

/** Of all authorities, and of one: each is of one capsule. */
const MAXIMUM_CONTEXTS = 1024
const MAXIMUM_OF_ONE = 16

interface Issued {
  readonly context: SecureContext
  readonly cert: string
}

/** Certificates for hosts, each made once. */
export class Issuer {
  /** By host and authority. Oldest use first. */
  readonly #issued = new Map<string, Promise<Issued>>()

  async contextFor(authority: Credentials, host: string): Promise<SecureContext> {
    const key = `${host} ${authority.cert}`
    const issued = this.#currentOr(this.#issued.get(key), () => issue(authority, host))
    this.#issued.delete(key)
    this.#issued.set(key, issued)
    this.#makeRoom(authority)
    issued.catch(() => this.#issued.get(key) === issued && this.#issued.delete(key)) // the caller hears of it
    return (await issued).context
  }

  /** One that is being made is waited for by all who ask meanwhile. */
  async #currentOr(known: Promise<Issued> | undefined, make: () => Promise<Issued>): Promise<Issued> {
    if (known === undefined) return await make()
    const issued = await known
    return isSoonOver(issued.cert) ? await make() : issued
  }

  #makeRoom({ cert }: Credentials): void {
    const keys = [...this.#issued.keys()]
    const mine = keys.filter((key) => key.endsWith(` ${cert}`))
    const [oldest] = mine.length > MAXIMUM_OF_ONE ? mine : keys
    const isFull = mine.length > MAXIMUM_OF_ONE || keys.length > MAXIMUM_CONTEXTS
    if (isFull && oldest !== undefined) this.#issued.delete(oldest)
  }
}

async function issue(authority: Credentials, host: string): Promise<Issued> {
  const { cert, key } = await issueHostCertificate(authority, host)
  return { context: createSecureContext({ cert, key, minVersion: 'TLSv1.2' }), cert }
}
