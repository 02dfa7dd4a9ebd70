import { userIds } from '@wrenn/base'
import type { Scope } from '@wrenn/protocol'
import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import type { UserRow, UserStatus } from './schema.js'

/** Any number that nobody else uses in this database: the letters of "people". */
const PEOPLE_LOCK = 0x70656f706c65

/** Until the end of the transaction nobody else changes who there is, or what they are to the platform. */
export async function lockPeople(tx: Db): Promise<void> {
  await sql`SELECT pg_advisory_xact_lock(${PEOPLE_LOCK})`.execute(tx)
}

/** Whatever the case of the address; those that are to be deleted too. */
export async function findUserByEmail(db: Db, email: string): Promise<UserRow | undefined> {
  return await db
    .selectFrom('users')
    .selectAll()
    .where(sql<SqlBool>`lower(email) = lower(${email})`)
    // The index of addresses has no others.
    .where('erased_at', 'is', null)
    .executeTakeFirst()
}

/** Also one that is to be deleted. */
export async function findUser(db: Db, id: string): Promise<UserRow | undefined> {
  return await db.selectFrom('users').selectAll().where('id', '=', id).executeTakeFirst()
}

/** Held until the end of the transaction: nobody changes the account, or begins what its change would end. */
export async function lockUser(tx: Db, id: string): Promise<UserRow | undefined> {
  return await tx.selectFrom('users').selectAll().where('id', '=', id).forNoKeyUpdate().executeTakeFirst()
}

interface NewUser {
  readonly email: string
  readonly name: string
  readonly passwordHash?: string | undefined
}

/** A pending account. */
export async function addUser(tx: Db, { email, name, passwordHash }: NewUser): Promise<UserRow> {
  return await tx
    .insertInto('users')
    .values({ id: userIds.create(), email: email.toLowerCase(), name, password_hash: passwordHash ?? null })
    .returningAll()
    .executeTakeFirstOrThrow()
}

interface UserChange {
  readonly name?: string | undefined
  readonly password_hash?: string | null | undefined
  readonly status?: UserStatus | undefined
  readonly is_admin?: boolean | undefined
}

/** `undefined` when there is no such account. */
export async function changeUser(tx: Db, id: string, change: UserChange): Promise<UserRow | undefined> {
  return await tx
    .updateTable('users')
    .set({ ...change, updated_at: sql<Date>`now()` })
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirst()
}

/** How many active accounts there are, and how many of them are admins, `exceptId` left out. */
export async function countActive(db: Db, exceptId = ''): Promise<{ all: number; admins: number }> {
  return await db
    .selectFrom('users')
    .select((eb) => [
      eb.fn.countAll<number>().as('all'),
      eb.fn.countAll<number>().filterWhere('is_admin', '=', true).as('admins'),
    ])
    .where('status', '=', 'active')
    .where('deleted_at', 'is', null)
    .where('id', '!=', exceptId)
    .executeTakeFirstOrThrow()
}

/** Oldest first, after the account `afterId`; those that are to be deleted too. */
export async function listUsers(db: Db, limit: number, afterId: string | undefined): Promise<UserRow[]> {
  let query = db.selectFrom('users').selectAll().where('erased_at', 'is', null)
  if (afterId !== undefined) {
    query = query.where(
      sql<SqlBool>`(created_at, id) > (SELECT created_at, id FROM users AS last WHERE last.id = ${afterId})`,
    )
  }
  return await query.orderBy('created_at').orderBy('id').limit(limit).execute()
}

/** Revokes every key that a person has made, and those that were made with them; or of these only those with one of `held`. */
export async function revokeKeysOf(tx: Db, userId: string, held?: readonly Scope[]): Promise<void> {
  await sql`WITH RECURSIVE made (id) AS (
      SELECT id FROM api_keys WHERE created_by = ${userId}
      UNION SELECT k.id FROM api_keys AS k JOIN made ON k.created_by = made.id
    )
    UPDATE api_keys SET revoked_at = now() WHERE revoked_at IS NULL AND id IN (SELECT id FROM made)
      AND ${held === undefined ? sql`true` : sql`scopes && ${[...held]}::text[]`}`.execute(tx)
}
