import { sql } from 'kysely'
import type { Db } from './database.js'
import type { HostAuthorityRow } from './schema.js'

/** One that signs. */
export type HostAuthorityInForce = HostAuthorityRow & { readonly key: string }

/** Until the end of the transaction nobody else makes or retires one. */
export async function lockHostAuthorities(tx: Db): Promise<void> {
  await sql`LOCK TABLE host_authorities IN SHARE ROW EXCLUSIVE MODE`.execute(tx)
}

/** Those in force, the oldest first. */
export async function listHostAuthorities(db: Db): Promise<HostAuthorityInForce[]> {
  const rows = await db
    .selectFrom('host_authorities')
    .selectAll()
    .where('retired_at', 'is', null)
    .orderBy('seq')
    .execute()
  return rows.flatMap((row) => (row.key === null ? [] : [{ ...row, key: row.key }]))
}

export async function addHostAuthority(
  tx: Db,
  made: Pick<HostAuthorityInForce, 'serial' | 'certificate' | 'key'>,
): Promise<void> {
  await tx.insertInto('host_authorities').values(made).execute()
}

/** Encrypts its key anew, unless it has retired or somebody else has meanwhile. */
export async function resealHostAuthority(
  db: Db,
  { serial, key }: HostAuthorityInForce,
  sealed: string,
): Promise<void> {
  await db
    .updateTable('host_authorities')
    .set({ key: sealed })
    .where('serial', '=', serial)
    .where('key', '=', key)
    .execute()
}

/**
 * Retires those that are older than the newest one and of which no certificate of a host counts any more; their keys are forgotten.
 * @returns their serials
 */
export async function retireHostAuthorities(tx: Db, now: Date): Promise<string[]> {
  const { rows } = await sql<{ serial: string }>`UPDATE host_authorities a SET retired_at = now(), key = NULL
    WHERE retired_at IS NULL AND seq < (SELECT max(seq) FROM host_authorities)
      AND NOT EXISTS (SELECT FROM host_certificates c
        WHERE c.authority_serial = a.serial AND c.revoked_at IS NULL AND c.expires_at > ${now})
    RETURNING serial`.execute(tx)
  return rows.map(({ serial }) => serial)
}

interface NewHostCertificate {
  readonly serial: string
  readonly authoritySerial: string
  readonly hostId: string
  readonly keyHash: string
  readonly issuedAt: Date
  readonly expiresAt: Date
}

export async function recordHostCertificate(tx: Db, issued: NewHostCertificate): Promise<void> {
  await tx
    .insertInto('host_certificates')
    .values({
      serial: issued.serial,
      authority_serial: issued.authoritySerial,
      host_id: issued.hostId,
      key_hash: issued.keyHash,
      issued_at: issued.issuedAt,
      expires_at: issued.expiresAt,
    })
    .execute()
}

/** @returns how many counted until now */
export async function revokeHostCertificates(tx: Db, hostId: string, now: Date): Promise<number> {
  const revoked = await tx
    .updateTable('host_certificates')
    .set({ revoked_at: now })
    .where('host_id', '=', hostId)
    .where('revoked_at', 'is', null)
    .where('expires_at', '>', now)
    .executeTakeFirst()
  return Number(revoked.numUpdatedRows)
}

/** Revoked before they are over, of all authorities. */
export async function listRevokedHostCertificates(
  db: Db,
  now: Date,
): Promise<{ readonly serial: string; readonly authoritySerial: string; readonly revokedAt: Date }[]> {
  const rows = await db
    .selectFrom('host_certificates')
    .select(['serial', 'authority_serial', 'revoked_at'])
    .where('revoked_at', 'is not', null)
    .where('expires_at', '>', now)
    .orderBy('serial')
    .execute()
  return rows.map((row) => ({
    serial: row.serial,
    authoritySerial: row.authority_serial,
    revokedAt: row.revoked_at ?? now,
  }))
}

/** Forgets those that were over before then. */
export async function pruneHostCertificates(db: Db, before: Date): Promise<void> {
  await db.deleteFrom('host_certificates').where('expires_at', '<', before).execute()
}
