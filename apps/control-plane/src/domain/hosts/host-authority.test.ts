import { X509Certificate } from 'node:crypto'
import {
  type CertificateRequest,
  createCertificateRequest,
  hostName,
  readCertificateRequest,
} from '@wrenn/certificates'
import { testPostgresKinds } from '@wrenn/testkit'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Db } from '../../store/database.js'
import { useDatabases } from '../../testing/databases.js'
import { Keyring } from '../secrets/index.js'
import { HostAuthority } from './host-authority.js'

const DAY_MS = 24 * 3600 * 1000
const START_MS = Date.parse('2030-01-01T00:00:00Z')
const [FIRST, SECOND] = [`host-${'1'.repeat(25)}`, `host-${'2'.repeat(25)}`]
const keyring = new Keyring([Buffer.alloc(32, 1)])
const actor = { id: 'key-1', name: 'ci', requestId: 'r', ip: '' }

const serials = (certificates: readonly string[]): string[] =>
  certificates.map((pem) => new X509Certificate(pem).serialNumber.toLowerCase())
const blocks = (pem: string): string[] => pem.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g) ?? []
const request = async (): Promise<CertificateRequest> =>
  await readCertificateRequest((await createCertificateRequest()).request)

describe.each(testPostgresKinds())('the authority of hosts on $name', ({ start }) => {
  const fresh = useDatabases(start)
  let db: Db
  let nowMs: number
  const now = (): Date => new Date(nowMs)
  const passed = (days: number): void => {
    nowMs += days * DAY_MS
  }

  beforeEach(async () => {
    nowMs = START_MS
    db = (await fresh()).db
  })

  /** Who issued it: the serial of the authority. */
  async function issuerOf(cert: string, authority: HostAuthority): Promise<string | undefined> {
    const issued = new X509Certificate(cert)
    const { authorities } = await authority.trust()
    const issuer = authorities.find((pem) => issued.verify(new X509Certificate(pem).publicKey))
    return issuer && serials([issuer])[0]
  }

  it('is made once, when it is first needed, however many ask', async () => {
    const replicas = [1, 2, 3, 4].map(() => new HostAuthority({ db, keyring, now }))
    expect(await db.selectFrom('host_authorities').selectAll().execute()).toEqual([])
    const trusted = await Promise.all(replicas.map(async (each) => (await each.trust()).authorities))
    expect(new Set(trusted.flat()).size).toBe(1)
    const made = await db.selectFrom('audit_log').select(['action', 'actor_type']).execute()
    expect(made).toEqual([{ action: 'host_authority.create', actor_type: 'system' }])
  })

  it('keeps its key encrypted, and anew with another key for secrets', async () => {
    const before = await new HostAuthority({ db, keyring, now }).credentials()
    const stored = async () => await db.selectFrom('host_authorities').select(['key']).executeTakeFirstOrThrow()
    expect((await stored()).key).toMatch(/^v1\./)
    const next = new Keyring([Buffer.alloc(32, 2), Buffer.alloc(32, 1)])
    const authority = new HostAuthority({ db, keyring: next, now })
    const { cert } = await authority.credentials()
    expect(cert).not.toBe(before.cert)
    expect((await stored()).key?.startsWith(next.sealPrefix)).toBe(true)
    const without = new HostAuthority({ db, keyring: new Keyring([]), now })
    await expect(without.credentials()).rejects.toMatchObject({ code: 'not_supported' })
  })

  it('issues to a host what its id and key are, and records it', async () => {
    const authority = new HostAuthority({ db, keyring, now })
    const issued = await authority.certify(FIRST, await request())
    expect(new X509Certificate(issued.cert).subjectAltName).toBe(`DNS:${hostName(FIRST)}`)
    expect(blocks(issued.authorities)).toHaveLength(1)
    expect(issued.expiresAt).toEqual(new Date(START_MS + 7 * DAY_MS))
    const [row] = await db.selectFrom('host_certificates').selectAll().execute()
    expect(row).toMatchObject({ serial: issued.serial, host_id: FIRST, issued_at: now(), revoked_at: null })
    expect(row?.key_hash).toMatch(/^[0-9a-f]{64}$/)
  })

  it('issues nothing for what is no request, and records nothing when its transaction fails', async () => {
    const authority = new HostAuthority({ db, keyring, now })
    await expect(authority.read('a request')).rejects.toMatchObject({ code: 'invalid_request' })
    const failing = db.transaction().execute(async (tx) => {
      await authority.certify(FIRST, await request(), tx)
      throw new Error('no')
    })
    await expect(failing).rejects.toThrow('no')
    expect(await db.selectFrom('host_certificates').selectAll().execute()).toEqual([])
  })

  it('lists what was revoked until it would be over, and of that host alone', async () => {
    const authority = new HostAuthority({ db, keyring, now })
    await authority.certify(FIRST, await request())
    await authority.certify(FIRST, await request())
    await authority.certify(SECOND, await request())
    const { revocations: none } = await authority.trust()
    expect(none).toHaveLength(1)
    expect([await authority.revoke(FIRST), await authority.revoke(FIRST)]).toEqual([2, 0])
    const { revocations: two } = await authority.trust()
    expect(two[0]?.length).toBeGreaterThan(none[0]?.length ?? 0)
    passed(8)
    const { revocations: over } = await authority.trust()
    expect(over[0]).toHaveLength(none[0]?.length ?? 0)
  })

  it('renews what control planes call with after two thirds of a day', async () => {
    const authority = new HostAuthority({ db, keyring, now })
    const first = await authority.credentials()
    passed(0.5)
    expect(await authority.credentials()).toBe(first)
    passed(0.25)
    expect((await authority.credentials()).cert).not.toBe(first.cert)
  })

  it('hands over to another one without a moment in which a host and a control plane do not trust each other', async () => {
    const [authority, replica] = [new HostAuthority({ db, keyring, now }), new HostAuthority({ db, keyring, now })]
    const first = await authority.certify(FIRST, await request())
    const second = await authority.certify(SECOND, await request())
    const [old] = serials((await authority.trust()).authorities)
    await authority.rotate(actor)

    const { authorities, revocations } = await replica.trust()
    expect([authorities.length, revocations.length]).toEqual([2, 2])
    const [, fresh] = serials(authorities)
    // Hosts know the old one alone: control planes show a certificate of that.
    expect(await issuerOf((await replica.credentials()).cert, authority)).toBe(old)
    const renewed = await replica.certify(FIRST, await request())
    expect(await issuerOf(renewed.cert, authority)).toBe(fresh)
    expect(serials(blocks(renewed.authorities))).toEqual([old, fresh])
    await expect(authority.rotate(actor)).rejects.toMatchObject({ code: 'conflict' })

    passed(5)
    await authority.certify(SECOND, await request())
    await authority.tidy()
    expect(serials((await authority.trust()).authorities), 'the second host might not have its answer').toEqual([
      old,
      fresh,
    ])
    passed(3)
    expect(first.expiresAt < now() && second.expiresAt < now()).toBe(true)
    await authority.tidy()
    expect(serials((await replica.trust()).authorities)).toEqual([fresh])
    expect(await issuerOf((await replica.credentials()).cert, authority)).toBe(fresh)
    const retired = await db
      .selectFrom('host_authorities')
      .select('key')
      .where('serial', '=', old ?? '')
      .execute()
    expect(retired).toEqual([{ key: null }])
    const actions = await db.selectFrom('audit_log').select(['action', 'actor_id']).orderBy('at').execute()
    expect(actions).toEqual([
      { action: 'host_authority.create', actor_id: null },
      { action: 'host_authority.create', actor_id: 'key-1' },
      { action: 'host_authority.retire', actor_id: null },
    ])
  })

  it('does not wait for the certificates of a host that was revoked', async () => {
    const authority = new HostAuthority({ db, keyring, now })
    await authority.certify(FIRST, await request())
    await authority.rotate(actor)
    await authority.revoke(FIRST)
    await authority.tidy()
    expect((await authority.trust()).authorities).toHaveLength(1)
  })

  it('makes another one by itself before it ends', async () => {
    const authority = new HostAuthority({ db, keyring, now })
    const [old] = serials((await authority.trust()).authorities)
    await authority.tidy()
    expect(serials((await authority.trust()).authorities)).toEqual([old])
    passed(3650 - 29)
    await authority.tidy()
    const [first, second] = serials((await authority.trust()).authorities)
    expect([first, second === undefined]).toEqual([old, false])
    await authority.tidy()
    expect(serials((await authority.trust()).authorities)).toEqual([second])
  })

  it('forgets what has long been over', async () => {
    const authority = new HostAuthority({ db, keyring, now })
    await authority.certify(FIRST, await request())
    passed(36)
    await authority.tidy()
    expect(await db.selectFrom('host_certificates').selectAll().execute()).toHaveLength(1)
    passed(2)
    await authority.tidy()
    expect(await db.selectFrom('host_certificates').selectAll().execute()).toEqual([])
  })
})
