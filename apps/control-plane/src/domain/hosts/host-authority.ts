import { AppError } from '@wrenn/base'
import type { CertificateRequest, Credentials, IssuedCertificate } from '@wrenn/certificates'
import { writeAudit } from '../../store/audit.js'
import { type Db, inTransaction } from '../../store/database.js'
import {
  addHostAuthority,
  type HostAuthorityInForce,
  listHostAuthorities,
  listRevokedHostCertificates,
  lockHostAuthorities,
  pruneHostCertificates,
  recordHostCertificate,
  resealHostAuthority,
  retireHostAuthorities,
  revokeHostCertificates,
} from '../../store/host-authorities.js'
import type { Actor } from '../../store/schema.js'
import { PLATFORM_TEAM_ID } from '../people/index.js'
import type { Keyring } from '../secrets/index.js'

const HOUR_MS = 3600 * 1000
const DAY_MS = 24 * HOUR_MS
/** A host renews after two thirds of it, so it may be out of reach for two days. */
const HOST_LIFETIME_MS = 7 * DAY_MS
/** Made anew after two thirds of it, at the latest at each start; the key is nowhere but in memory. */
const CONTROL_PLANE_LIFETIME_MS = DAY_MS
/** Made anew after half of it; one that is older is of a control plane that no longer looks. */
const LIST_LIFETIME_MS = DAY_MS
/** How long what is over stays on record. */
const KEEP_MS = 30 * DAY_MS

interface HostAuthorityDeps {
  readonly db: Db
  readonly keyring: Keyring
  /** @default the time of this machine */
  readonly now?: () => Date
}

/** What a host is given with its certificate. */
export interface HostCertificate extends IssuedCertificate {
  /** Certificates of all authorities that it trusts, as PEM. */
  readonly authorities: string
}

/** By what a control plane knows hosts. */
export interface HostTrust {
  /** Certificates of authorities, as PEM. */
  readonly authorities: readonly string[]
  /** A list of revoked certificates of each of them, as PEM. */
  readonly revocations: readonly string[]
  /** The same as long as all of it means the same. */
  readonly fingerprint: string
}

interface Opened extends Credentials {
  readonly serial: string
}

// It costs a process memory that it need not spend while no host has joined.
const certificates = () => import('@wrenn/certificates')

/**
 * The platform's own authority, by which hosts and control planes know each other. It is made when it is first needed; its key lies encrypted
 * in the database. While another one takes its place both are trusted: the newest signs for hosts, each of which is given all of them; the
 * oldest, which every host has been given, signs for control planes, until no host has a certificate of it.
 */
export class HostAuthority {
  readonly #db: Db
  readonly #keyring: Keyring
  readonly #now: () => Date
  #own: { readonly serial: string; readonly credentials: Credentials } | undefined
  #trust: HostTrust | undefined

  constructor({ db, keyring, now = () => new Date() }: HostAuthorityDeps) {
    this.#db = db
    this.#keyring = keyring
    this.#now = now
  }

  /** Reads the request of a host: the key in it counts, and nothing else. @throws AppError `invalid_request` */
  async read(request: string): Promise<CertificateRequest> {
    const { CertificateRequestError, readCertificateRequest } = await certificates()
    return await readCertificateRequest(request).catch((error: unknown) => {
      throw error instanceof CertificateRequestError ? new AppError('invalid_request', error.message) : error
    })
  }

  /**
   * Issues a certificate to a host, for its id and the key of its request alone; those that it has stay good. In the transaction that `db` is, if it
   * is one.
   * @throws AppError `not_supported` without a key for secrets
   */
  async certify(hostId: string, request: CertificateRequest, db: Db = this.#db): Promise<HostCertificate> {
    const { issueToHost } = await certificates()
    return await inTransaction(db, async (tx) => {
      const inForce = await this.#inForce(tx)
      const newest = await this.#open(tx, inForce.at(-1))
      const issuedAt = this.#now()
      const issued = await issueToHost(newest, hostId, request, HOST_LIFETIME_MS, issuedAt)
      const { serial, expiresAt } = issued
      const { keyHash } = request
      await recordHostCertificate(tx, { serial, authoritySerial: newest.serial, hostId, keyHash, issuedAt, expiresAt })
      return { ...issued, authorities: inForce.map(({ certificate }) => certificate).join('\n') }
    })
  }

  /** What a control plane calls hosts with. Ask each time: it is made anew in time. @throws AppError `not_supported` */
  async credentials(): Promise<Credentials> {
    const { issueToControlPlane, isDueForRenewal } = await certificates()
    const [oldest] = await this.#ensure()
    const own = this.#own
    if (own !== undefined && own.serial === oldest?.serial) {
      if (!isDueForRenewal(own.credentials.cert, this.#now())) return own.credentials
    }
    const opened = await this.#open(this.#db, oldest)
    const credentials = await issueToControlPlane(opened, CONTROL_PLANE_LIFETIME_MS, this.#now())
    this.#own = { serial: opened.serial, credentials }
    return credentials
  }

  /** By what hosts are known now. @throws AppError `not_supported` */
  async trust(): Promise<HostTrust> {
    const { createRevocationList } = await certificates()
    const now = this.#now()
    const [inForce, revoked] = [await this.#ensure(), await listRevokedHostCertificates(this.#db, now)]
    // Half a life later the same lists are made anew.
    const half = Math.floor(now.getTime() / (LIST_LIFETIME_MS / 2))
    const serials = [inForce, revoked].map((all) => all.map(({ serial }) => serial).join())
    const fingerprint = [half, ...serials].join(' ')
    if (this.#trust?.fingerprint === fingerprint) return this.#trust
    const revocations: string[] = []
    for (const row of inForce) {
      const own = revoked.filter(({ authoritySerial }) => authoritySerial === row.serial)
      revocations.push(await createRevocationList(await this.#open(this.#db, row), own, LIST_LIFETIME_MS, now))
    }
    const authorities = inForce.map(({ certificate }) => certificate)
    this.#trust = { authorities, revocations, fingerprint }
    return this.#trust
  }

  /** All certificates of a host: it is called no more. @returns how many counted until now */
  async revoke(hostId: string, db: Db = this.#db): Promise<number> {
    return await revokeHostCertificates(db, hostId, this.#now())
  }

  /**
   * Makes another authority, which hosts get certificates of from now on. The one before is trusted for as long as a host may have one of it.
   * @throws AppError `conflict` while that is so for two already, `not_supported` without a key for secrets
   */
  async rotate(actor: Actor | undefined): Promise<void> {
    await this.#db.transaction().execute(async (tx) => {
      await lockHostAuthorities(tx)
      await this.#retire(tx)
      if ((await listHostAuthorities(tx)).length > 1) {
        throw new AppError(
          'conflict',
          'Some hosts have certificates of the authority before; wait until all have renewed.',
        )
      }
      await this.#add(tx, actor)
    })
  }

  /** Retires authorities that no host has a certificate of any more, makes one in place of one that ends soon, and forgets old records. */
  async tidy(): Promise<void> {
    const { isSoonOver } = await certificates()
    const now = this.#now()
    await pruneHostCertificates(this.#db, new Date(now.getTime() - KEEP_MS))
    await this.#db.transaction().execute(async (tx) => {
      await lockHostAuthorities(tx)
      await this.#retire(tx)
      const newest = (await listHostAuthorities(tx)).at(-1)
      if (newest !== undefined && isSoonOver(newest.certificate, now)) await this.#add(tx, undefined)
    })
  }

  /** The oldest first; there is always one. */
  async #ensure(): Promise<HostAuthorityInForce[]> {
    const known = await listHostAuthorities(this.#db)
    return known.length > 0 ? known : await this.#db.transaction().execute(async (tx) => await this.#inForce(tx))
  }

  async #inForce(tx: Db): Promise<HostAuthorityInForce[]> {
    await lockHostAuthorities(tx)
    const known = await listHostAuthorities(tx)
    if (known.length > 0) return known
    await this.#add(tx, undefined)
    return await listHostAuthorities(tx)
  }

  async #retire(tx: Db): Promise<void> {
    for (const serial of await retireHostAuthorities(tx, this.#now())) {
      await writeAudit(tx, entryOf('host_authority.retire', serial, undefined))
    }
  }

  async #add(tx: Db, actor: Actor | undefined): Promise<void> {
    const { createHostAuthority } = await certificates()
    const { serial, cert, key } = await createHostAuthority(this.#now())
    await addHostAuthority(tx, { serial, certificate: cert, key: this.#keyring.seal(key, contextOf(serial)) })
    await writeAudit(tx, entryOf('host_authority.create', serial, actor))
  }

  async #open(db: Db, row: HostAuthorityInForce | undefined): Promise<Opened> {
    if (row === undefined) throw new Error('no authority of hosts')
    const { serial, certificate: cert } = row
    const { text: key, isCurrent } = this.#keyring.open(row.key, contextOf(serial))
    if (!isCurrent) await resealHostAuthority(db, row, this.#keyring.seal(key, contextOf(serial)))
    return { serial, cert, key }
  }
}

function contextOf(serial: string): string {
  return `key of the host authority ${serial}`
}

function entryOf(action: string, serial: string, actor: Actor | undefined) {
  const resource = { type: 'host_authority', id: serial } as const
  return { teamId: PLATFORM_TEAM_ID, actor, action, resource, scope: 'admin' } as const
}
