import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import { dropFactors } from './factors.js'
import { inSeconds } from './in-seconds.js'
import type { UserRow } from './schema.js'

/** Marks an account as deleted; it can be taken back for `graceSec`. */
export async function markDeleted(tx: Db, id: string, graceSec: number): Promise<Date> {
  const { erase_at: eraseAt } = await tx
    .updateTable('users')
    .set({ deleted_at: sql<Date>`now()`, erase_at: inSeconds(graceSec) })
    .where('id', '=', id)
    .returning('erase_at')
    .executeTakeFirstOrThrow()
  if (eraseAt === null) throw new Error('an account was marked without a date')
  return eraseAt
}

/** Takes that back. */
export async function unmarkDeleted(tx: Db, id: string): Promise<UserRow> {
  return await tx
    .updateTable('users')
    .set({ deleted_at: null, erase_at: null, updated_at: sql<Date>`now()` })
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

/** A team of somebody's own. */
export interface OwnedTeam {
  readonly id: string
  readonly name: string
  /** How many are in it beside its owner. */
  readonly others: number
}

/** The teams that somebody owns, in the order in which they are to be held. */
export async function listOwned(db: Db, userId: string): Promise<OwnedTeam[]> {
  return await db
    .selectFrom('team_members as m')
    .innerJoin('teams as t', 't.id', 'm.team_id')
    .select(['t.id', 't.name'])
    .select((eb) =>
      eb
        .selectFrom('team_members as o')
        .select(eb.fn.countAll<number>().as('count'))
        .whereRef('o.team_id', '=', 'm.team_id')
        .where('o.user_id', '!=', userId)
        .$asScalar()
        .$notNull()
        .as('others'),
    )
    .where('m.user_id', '=', userId)
    .where('m.role', '=', 'owner')
    .where('t.deleted_at', 'is', null)
    .orderBy('t.id')
    .execute()
}

/** Who of a team's people comes after its owner: who can act, of these an admin, or who has been there for longest. */
export async function findSuccessor(tx: Db, teamId: string, ownerId: string): Promise<string | undefined> {
  const found = await tx
    .selectFrom('team_members as m')
    .innerJoin('users as u', 'u.id', 'm.user_id')
    .select('m.user_id')
    .where('m.team_id', '=', teamId)
    .where('m.user_id', '!=', ownerId)
    .orderBy(sql`u.status = 'active' AND u.deleted_at IS NULL`, 'desc')
    .orderBy(sql`m.role = 'admin'`, 'desc')
    .orderBy('m.joined_at')
    .orderBy('m.user_id')
    .limit(1)
    .executeTakeFirst()
  return found?.user_id
}

const isDue = sql<SqlBool>`erase_at <= now() AND erased_at IS NULL`

/** Accounts whose time is over. */
export async function listDue(db: Db, limit: number): Promise<string[]> {
  const rows = await db.selectFrom('users').select('id').where(isDue).orderBy('erase_at').limit(limit).execute()
  return rows.map(({ id }) => id)
}

/** One of these, held until the end of the transaction; `undefined` when it was taken back, is erased, or another holds it. */
export async function lockDue(tx: Db, id: string): Promise<UserRow | undefined> {
  return await tx
    .selectFrom('users')
    .selectAll()
    .where('id', '=', id)
    .where(isDue)
    .forNoKeyUpdate()
    .skipLocked()
    .executeTakeFirst()
}

/** Leaves the id of an account and nothing of its person; entries of the audit trail name people by id. */
export async function eraseAccount(tx: Db, { id, email }: UserRow): Promise<void> {
  for (const table of ['team_members', 'sessions', 'email_tokens', 'oauth_identities'] as const) {
    await tx.deleteFrom(table).where('user_id', '=', id).execute()
  }
  await dropFactors(tx, id)
  await tx.deleteFrom('invitations').where('email', '=', email).execute()
  await tx.updateTable('invitations').set({ inviter_name: '' }).where('invited_by', '=', id).execute()
  for (const table of ['operations', 'template_builds']) {
    await sql`UPDATE ${sql.table(table)} SET actor = actor || '{"name": "", "ip": ""}' WHERE actor->>'id' = ${id}`.execute(
      tx,
    )
  }
  await tx
    .updateTable('users')
    .set({
      email: '',
      name: '',
      password_hash: null,
      status: 'disabled',
      is_admin: false,
      erased_at: sql<Date>`now()`,
      updated_at: sql<Date>`now()`,
    })
    .where('id', '=', id)
    .execute()
}
