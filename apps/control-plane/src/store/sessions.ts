import { sessionIds } from '@wrenn/base'
import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import { inSeconds } from './in-seconds.js'
import type { SessionRow, TeamMembersTable, UserStatus } from './schema.js'

/** Where a request of a session came from. */
export interface Client {
  readonly ip: string
  readonly userAgent: string
}

const USER_AGENT_LENGTH = 256

interface NewSession {
  readonly userId: string
  readonly teamId: string
  readonly refreshHash: string
  readonly rotationKey: string
  readonly lifeSec: number
  readonly client: Client
  /** Whether its person has proved to it who they are. */
  readonly isConfirmed: boolean
}

/** Begins a session. */
export async function addSession(tx: Db, session: NewSession): Promise<SessionRow> {
  return await tx
    .insertInto('sessions')
    .values({
      id: sessionIds.create(),
      user_id: session.userId,
      team_id: session.teamId,
      refresh_hash: session.refreshHash,
      rotation_key: session.rotationKey,
      expires_at: inSeconds(session.lifeSec),
      ip: session.client.ip,
      user_agent: session.client.userAgent.slice(0, USER_AGENT_LENGTH),
      ...(session.isConfirmed ? {} : { confirmed_at: sql<Date>`'epoch'` }),
    })
    .returningAll()
    .executeTakeFirstOrThrow()
}

/** Its person has proved who they are. */
export async function confirmSession(db: Db, id: string): Promise<void> {
  await db.updateTable('sessions').set({ confirmed_at: sql<Date>`now()` }).where('id', '=', id).execute()
}

/** Whether that was in the last `withinSec`, and the session goes on. */
export async function isConfirmed(db: Db, id: string, withinSec: number): Promise<boolean> {
  const found = await db
    .selectFrom('sessions')
    .select('id')
    .where('id', '=', id)
    .where('revoked_at', 'is', null)
    .where('expires_at', '>', sql<Date>`now()`)
    .where('confirmed_at', '>', sql<Date>`now() - ${withinSec} * interval '1 second'`)
    .executeTakeFirst()
  return found !== undefined
}

/** Another token for the requests of a session; those before are good until their end. */
export async function addAccessToken(tx: Db, sessionId: string, digest: string, lifeSec: number): Promise<Date> {
  const { expires_at: expiresAt } = await tx
    .insertInto('access_tokens')
    .values({ digest, session_id: sessionId, expires_at: inSeconds(lifeSec) })
    .returning('expires_at')
    .executeTakeFirstOrThrow()
  return expiresAt
}

/** A session that goes on, held until the end of the transaction, and whether its last rotation is younger than `recentMs`. */
export async function lockSession(
  tx: Db,
  id: string,
  recentMs = 0,
): Promise<(SessionRow & { readonly isRecent: boolean }) | undefined> {
  return await tx
    .selectFrom('sessions')
    .selectAll()
    .select(sql<boolean>`rotated_at > clock_timestamp() - ${recentMs} * interval '1 millisecond'`.as('isRecent'))
    .where('id', '=', id)
    .where('revoked_at', 'is', null)
    .where('expires_at', '>', sql<Date>`now()`)
    .forNoKeyUpdate()
    .executeTakeFirst()
}

/** Whose a session is, also when it is over. */
export async function findSessionHolder(db: Db, id: string): Promise<string | undefined> {
  return (await db.selectFrom('sessions').select('user_id').where('id', '=', id).executeTakeFirst())?.user_id
}

/** Puts a refresh token's successor into its place. */
export async function rotate(
  tx: Db,
  { id, refresh_hash }: SessionRow,
  nextHash: string,
  client: Client,
  lifeSec: number,
) {
  await tx
    .updateTable('sessions')
    .set((eb) => ({
      refresh_hash: nextHash,
      rotated_from: refresh_hash,
      rotations: eb('rotations', '+', 1),
      rotated_at: sql<Date>`clock_timestamp()`,
      last_used_at: sql<Date>`now()`,
      expires_at: inSeconds(lifeSec),
      ip: client.ip,
      user_agent: client.userAgent.slice(0, USER_AGENT_LENGTH),
    }))
    .where('id', '=', id)
    .execute()
}

/** Moves a session to another team. */
export async function setSessionTeam(tx: Db, id: string, teamId: string): Promise<void> {
  await tx.updateTable('sessions').set({ team_id: teamId }).where('id', '=', id).execute()
}

/** Moves a session to the team that its person has been in for longest, when they have left its own. @returns whether it did */
export async function moveHomelessSession(db: Db, id: string): Promise<boolean> {
  const { numAffectedRows = 0n } = await sql`UPDATE sessions AS s SET team_id = home.team_id
    FROM (SELECT m.team_id FROM team_members AS m JOIN sessions AS of ON of.user_id = m.user_id
      WHERE of.id = ${id} ORDER BY m.joined_at, m.team_id LIMIT 1) AS home
    WHERE s.id = ${id} AND s.revoked_at IS NULL
      AND NOT EXISTS (SELECT FROM team_members AS m WHERE m.team_id = s.team_id AND m.user_id = s.user_id)`.execute(db)
  return numAffectedRows > 0n
}

/** Ends all but the `kept` sessions of a person that were used last. */
export async function endOldSessions(tx: Db, userId: string, kept: number): Promise<void> {
  await sql`UPDATE sessions SET revoked_at = now() WHERE id IN (
    SELECT id FROM sessions WHERE user_id = ${userId} AND revoked_at IS NULL AND expires_at > now()
    ORDER BY last_used_at DESC, created_at DESC, id OFFSET ${kept})`.execute(tx)
}

/** Whose an access token is, and what they may do now. */
export interface Holder {
  readonly sessionId: string
  readonly userId: string
  readonly email: string
  readonly name: string
  readonly isAdmin: boolean
  readonly status: UserStatus
  readonly teamId: string
  /** `null`: no longer in the team of the session. */
  readonly role: TeamMembersTable['role'] | null
  readonly expiresAt: Date
}

/** Of a session that goes on. */
export async function findHolder(db: Db, digest: string): Promise<Holder | undefined> {
  return await db
    .selectFrom('access_tokens as t')
    .innerJoin('sessions as s', 's.id', 't.session_id')
    .innerJoin('users as u', 'u.id', 's.user_id')
    .leftJoin('team_members as m', (join) =>
      join.onRef('m.team_id', '=', 's.team_id').onRef('m.user_id', '=', 's.user_id'),
    )
    .select([
      's.id as sessionId',
      'u.id as userId',
      'u.email',
      'u.name',
      'u.is_admin as isAdmin',
      'u.status',
      's.team_id as teamId',
      'm.role',
      't.expires_at as expiresAt',
    ])
    .where('t.digest', '=', digest)
    .where('s.revoked_at', 'is', null)
    .where('u.deleted_at', 'is', null)
    .executeTakeFirst()
}

/** What somebody is where they work, as text to compare. */
export function placeText(teamId: string, role: string, isAdmin: boolean): string {
  return `${teamId} ${role}${isAdmin ? ' admin' : ''}`
}

/** Which of these sessions go on, and as what (`placeText`), of people who may work there. */
export async function rolesInSessions(db: Db, ids: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const rows = await db
    .selectFrom('sessions as s')
    .innerJoin('users as u', 'u.id', 's.user_id')
    .innerJoin('team_members as m', (join) =>
      join.onRef('m.team_id', '=', 's.team_id').onRef('m.user_id', '=', 's.user_id'),
    )
    .select(['s.id', 'm.team_id', 'm.role', 'u.is_admin'])
    .where(sql<SqlBool>`s.id = ANY (${ids}::text[])`)
    .where('s.revoked_at', 'is', null)
    .where('s.expires_at', '>', sql<Date>`now()`)
    .where('u.status', '=', 'active')
    .where('u.deleted_at', 'is', null)
    .execute()
  return new Map(rows.map(({ id, team_id, role, is_admin }) => [id, placeText(team_id, role, is_admin)]))
}

/** Those of a person that go on, the one that was used last first. */
export async function listSessions(db: Db, userId: string): Promise<SessionRow[]> {
  return await db
    .selectFrom('sessions')
    .selectAll()
    .where('user_id', '=', userId)
    .where('revoked_at', 'is', null)
    .where('expires_at', '>', sql<Date>`now()`)
    .orderBy('last_used_at', 'desc')
    .orderBy('id')
    .execute()
}

interface Which {
  readonly userId: string
  readonly only?: string
  readonly except?: string | undefined
}

/** Ends sessions of a person: one, all but one, or all. Gives those that went on until now. */
export async function revokeSessions(tx: Db, { userId, only, except }: Which): Promise<string[]> {
  let query = tx
    .updateTable('sessions')
    .set({ revoked_at: sql<Date>`now()` })
    .where('user_id', '=', userId)
    .where('revoked_at', 'is', null)
  if (only !== undefined) query = query.where('id', '=', only)
  if (except !== undefined) query = query.where('id', '!=', except)
  return (await query.returning('id').execute()).map(({ id }) => id)
}

/** Forgets what is over: tokens at once, sessions when a replay of their tokens would not matter either. */
export async function pruneSessions(db: Db): Promise<void> {
  await db.deleteFrom('access_tokens').where('expires_at', '<', sql<Date>`now()`).execute()
  await db.deleteFrom('sessions').where('expires_at', '<', sql<Date>`now()`).execute()
  await db.deleteFrom('email_tokens').where('expires_at', '<', sql<Date>`now() - interval '1 day'`).execute()
}
