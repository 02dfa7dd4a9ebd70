import { type Insertable, type NotNull, sql, type Updateable } from 'kysely'
import { mayBeOnHost } from './capsules.js'
import type { Db } from './database.js'
import type { Database, JoinedHostRow } from './schema.js'

/** With what is known of it from elsewhere. */
export type KnownJoinedHost = JoinedHostRow & {
  readonly last_seen_at: Date | null
  readonly told_state: 'up' | 'down' | null
  readonly certificate_expires_at: Date | null
}

function known(db: Db) {
  return db
    .selectFrom('joined_hosts as j')
    .leftJoin('hosts as h', 'h.id', 'j.id')
    .selectAll('j')
    .select(['h.last_seen_at', 'h.told_state'])
    .select((eb) =>
      eb
        .selectFrom('host_certificates as c')
        .whereRef('c.host_id', '=', 'j.id')
        .where('c.revoked_at', 'is', null)
        .select(sql<Date | null>`max(c.expires_at)`.as('newest'))
        .as('certificate_expires_at'),
    )
}

/** The oldest first. */
export async function listJoinedHosts(db: Db): Promise<KnownJoinedHost[]> {
  return await known(db).orderBy('j.created_at').orderBy('j.id').execute()
}

/** Where those are that have joined, as far as they are trusted. */
export async function listCalledHosts(db: Db) {
  const joined = db.selectFrom('joined_hosts').select(['id', 'address', 'joined_at', 'revoked_at'])
  return await joined.where('joined_at', 'is not', null).$narrowType<{ joined_at: NotNull }>().execute()
}

export async function findJoinedHost(db: Db, id: string): Promise<KnownJoinedHost | undefined> {
  return await known(db).where('j.id', '=', id).executeTakeFirst()
}

/** Until the end of the transaction nobody else changes it. */
export async function lockJoinedHost(tx: Db, id: string): Promise<JoinedHostRow | undefined> {
  return await tx.selectFrom('joined_hosts').selectAll().where('id', '=', id).forUpdate().executeTakeFirst()
}

export async function addJoinedHost(tx: Db, host: Insertable<Database['joined_hosts']>): Promise<void> {
  await tx.insertInto('joined_hosts').values(host).execute()
}

export async function updateJoinedHost(
  tx: Db,
  id: string,
  changed: Updateable<Database['joined_hosts']>,
): Promise<void> {
  await tx.updateTable('joined_hosts').set(changed).where('id', '=', id).execute()
}

/** @returns whether there was one */
export async function dropJoinedHost(tx: Db, id: string): Promise<boolean> {
  const gone = await tx.deleteFrom('joined_hosts').where('id', '=', id).executeTakeFirst()
  return gone.numDeletedRows > 0n
}

/** How many capsules a host has that are not over, paused ones too, and ended ones that may be resumed there. */
export async function countCapsulesOfHost(db: Db, id: string): Promise<number> {
  return (await capsulesLeft(db).where('host_id', '=', id).executeTakeFirstOrThrow()).count
}

/** The same of all machines that have joined. */
export async function countCapsulesElsewhere(db: Db): Promise<number> {
  const joined = db.selectFrom('joined_hosts').select('id')
  return (await capsulesLeft(db).where('host_id', 'in', joined).executeTakeFirstOrThrow()).count
}

/** The same of the machine that the platform itself is on. */
export async function countOwnCapsules(db: Db): Promise<number> {
  const own = db.selectFrom('hosts').select('id').where('address', 'like', 'unix:%')
  return (await capsulesLeft(db).where('host_id', 'in', own).executeTakeFirstOrThrow()).count
}

function capsulesLeft(db: Db) {
  return db.selectFrom('capsules').select(sql<number>`count(*)`.as('count')).where(mayBeOnHost('capsules'))
}
