import { AppError } from '@wrenn/base'
import type { CertificateRequest } from '@wrenn/certificates'
import type { HostCredentials, RefreshHostInput, RegisterHostInput } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { findJoinedHost, lockJoinedHost, updateJoinedHost } from '../../store/joined-hosts.js'
import type { JoinedHostRow } from '../../store/schema.js'
import {
  digestOf,
  type From,
  isAncestor,
  isSame,
  newSecret,
  nextSecret,
  placeOf,
  type Throttle,
} from '../people/index.js'
import type { HostAuthority } from './host-authority.js'
import { type HostToken, hostToken, parseHostToken } from './host-tokens.js'
import { hostEntry, toHost } from './joined-host-view.js'

/** A host that was away for longer joins again. */
const REFRESH_LIFETIME_MS = 60 * 24 * 3600 * 1000

interface JoiningDeps {
  readonly db: Db
  readonly authority: HostAuthority
  readonly throttle: Throttle
  /** @default the time of this machine */
  readonly now?: () => Date
}

/**
 * How machines join and stay: a token that is good once gives a certificate and a refresh token, and each refresh token the next of both. An answer
 * that was lost can be asked for again for the same key, with no other. Whoever comes with a refresh token of before and with another key
 * has it from somewhere: then the host is trusted no more, whichever of the two is the host.
 */
export class Joining {
  readonly #deps: JoiningDeps

  constructor(deps: JoiningDeps) {
    this.#deps = deps
  }

  /** @throws AppError `host_not_trusted`, `invalid_request`, `limit_exceeded` */
  async register(input: RegisterHostInput, from: From): Promise<HostCredentials> {
    return await this.#counted(from, () => this.#register(input, from))
  }

  async #register({ token, csr, address, ...facts }: RegisterHostInput, from: From) {
    const given = parseHostToken('join', token)
    if (given === undefined) return undefined
    const request = await this.#deps.authority.read(csr)
    return await this.#deps.db.transaction().execute(async (tx) => {
      const host = await lockJoinedHost(tx, given.hostId)
      const now = this.#now()
      if (host === undefined || !isSame(digestOf(given.secret), host.token_digest ?? '')) return undefined
      if (host.token_expires_at === null || host.token_expires_at <= now) return undefined
      const isUsed = host.token_key_hash !== null
      if (isUsed && (host.token_key_hash !== request.keyHash || host.rotations > 0)) return undefined
      const rotationKey = (isUsed ? host.rotation_key : null) ?? newSecret()
      const secret = nextSecret(given.secret, rotationKey)
      await updateJoinedHost(tx, host.id, {
        ...{ address, arch: facts.arch ?? null, cpu_cores: facts.cpu_cores ?? null },
        ...{ memory_mib: facts.memory_mb ?? null, disk_gib: facts.disk_gb ?? null },
        ...{ token_key_hash: request.keyHash, joined_at: now, revoked_at: null },
        ...{ rotation_key: rotationKey, rotations: 0, refresh_digest: digestOf(secret) },
        ...this.#renewed(request, now),
      })
      if (!isUsed) {
        await this.#deps.authority.revoke(host.id, tx) // of what it had when it joins again
        await writeAudit(tx, hostEntry('host.join', host.id, undefined, { address, ip: from.ip }))
      }
      return await this.#answer(tx, { hostId: host.id, secret }, request)
    })
  }

  /** @throws AppError `host_not_trusted`, `invalid_request`, `limit_exceeded` */
  async refresh(input: RefreshHostInput, from: From): Promise<HostCredentials> {
    return await this.#counted(from, () => this.#refresh(input, from))
  }

  async #refresh({ refresh_token: token, csr }: RefreshHostInput, from: From) {
    const given = parseHostToken('refresh', token)
    if (given === undefined) return undefined
    const request = await this.#deps.authority.read(csr)
    return await this.#deps.db.transaction().execute(async (tx) => {
      const host = await lockJoinedHost(tx, given.hostId)
      const now = this.#now()
      if (host?.refresh_digest == null || host.rotation_key === null || host.revoked_at !== null) return undefined
      if (host.refresh_expires_at === null || host.refresh_expires_at <= now) return undefined
      const next = nextSecret(given.secret, host.rotation_key)
      const isCurrent = isSame(digestOf(given.secret), host.refresh_digest)
      const isAgain = isSame(digestOf(next), host.refresh_digest) && host.refresh_key_hash === request.keyHash
      if (!isCurrent && !isAgain) {
        const isStolen = isAncestor(given.secret, host.refresh_digest, host.rotation_key, host.rotations)
        if (isStolen) await this.#revoke(tx, host, from)
        return undefined
      }
      const rotations = isCurrent ? host.rotations + 1 : host.rotations
      const changed = { refresh_digest: digestOf(next), rotations, ...this.#renewed(request, now) }
      await updateJoinedHost(tx, host.id, changed)
      return await this.#answer(tx, { hostId: host.id, secret: next }, request)
    })
  }

  async #revoke(tx: Db, { id }: JoinedHostRow, from: From): Promise<void> {
    const now = this.#now()
    await updateJoinedHost(tx, id, { revoked_at: now, refresh_digest: null, token_digest: null, updated_at: now })
    await this.#deps.authority.revoke(id, tx)
    const details = { cause: 'an earlier refresh token came with another key', ip: from.ip }
    await writeAudit(tx, { ...hostEntry('host.revoke', id, undefined, details), outcome: 'failure' })
  }

  #renewed({ keyHash }: CertificateRequest, now: Date) {
    const refreshExpiresAt = new Date(now.getTime() + REFRESH_LIFETIME_MS)
    return { refresh_key_hash: keyHash, refresh_expires_at: refreshExpiresAt, updated_at: now }
  }

  async #answer(tx: Db, token: HostToken, request: CertificateRequest): Promise<HostCredentials> {
    const { cert, authorities } = await this.#deps.authority.certify(token.hostId, request, tx)
    const host = await findJoinedHost(tx, token.hostId)
    if (host === undefined) throw new Error('a host that is locked is gone')
    return {
      host: toHost(host),
      refresh_token: hostToken('refresh', token),
      cert_pem: cert,
      ca_cert_pem: authorities,
    }
  }

  /** Those that are let in do not count, and all count while they are looked at: nobody has more guesses at once than one after the other. */
  async #counted(from: From, work: () => Promise<HostCredentials | undefined>): Promise<HostCredentials> {
    const { throttle } = this.#deps
    const place = placeOf(from.ip)
    await throttle.count('hostPlace', place)
    const credentials = await work()
    if (credentials !== undefined) {
      await throttle.uncount('hostPlace', place)
      return credentials
    }
    const message = 'This token lets no host in: it was used, is too old, was replaced, or its host is no more.'
    throw new AppError('host_not_trusted', message)
  }

  #now(): Date {
    return this.#deps.now?.() ?? new Date()
  }
}
