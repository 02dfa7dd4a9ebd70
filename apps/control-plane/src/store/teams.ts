import { teamIds } from '@wrenn/base'
import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import type { TeamMembersTable, TeamRow } from './schema.js'

/** Gives the new team's id. Names need not be unique. */
export async function createTeam(db: Db, name: string): Promise<string> {
  const id = teamIds.create()
  await db.insertInto('teams').values({ id, name }).execute()
  return id
}

/** All teams that are not deleted, oldest first. */
export async function listTeamNames(db: Db): Promise<{ readonly id: string; readonly name: string }[]> {
  return await db
    .selectFrom('teams')
    .select(['id', 'name'])
    .where('deleted_at', 'is', null)
    .orderBy('created_at')
    .orderBy('id')
    .execute()
}

/** The team that the platform began with, deleted or not. */
export async function veryFirstTeam(db: Db): Promise<string | undefined> {
  const first = db.selectFrom('teams').select('id').orderBy('created_at').orderBy('id').limit(1)
  return (await first.executeTakeFirst())?.id
}

/** One that is not deleted. */
export async function findTeam(db: Db, id: string): Promise<TeamRow | undefined> {
  return await db
    .selectFrom('teams')
    .selectAll()
    .where('id', '=', id)
    .where('deleted_at', 'is', null)
    .executeTakeFirst()
}

/** Held until the end of the transaction, so that one change of its people at a time is decided. */
export async function holdTeam(tx: Db, id: string): Promise<TeamRow | undefined> {
  return await tx
    .selectFrom('teams')
    .selectAll()
    .where('id', '=', id)
    .where('deleted_at', 'is', null)
    .forNoKeyUpdate()
    .executeTakeFirst()
}

/** A team, and what somebody is in it. */
export type TeamOfPerson = TeamRow & { readonly role: TeamMembersTable['role'] }

/** The teams that somebody is in, the oldest membership first. */
export async function listTeamsOf(db: Db, userId: string): Promise<TeamOfPerson[]> {
  return await db
    .selectFrom('team_members as m')
    .innerJoin('teams as t', 't.id', 'm.team_id')
    .selectAll('t')
    .select('m.role')
    .where('m.user_id', '=', userId)
    .where('t.deleted_at', 'is', null)
    .orderBy('m.joined_at')
    .orderBy('t.id')
    .execute()
}

export async function renameTeam(tx: Db, id: string, name: string): Promise<void> {
  await tx.updateTable('teams').set({ name }).where('id', '=', id).execute()
}

/** From its commit on nobody is in it, no key of it is good and no invitation leads to it. What it has made is swept later. */
export async function endTeam(tx: Db, id: string): Promise<void> {
  const now = sql<Date>`now()`
  await tx.updateTable('teams').set({ deleted_at: now }).where('id', '=', id).execute()
  await tx
    .updateTable('api_keys')
    .set({ revoked_at: now })
    .where('team_id', '=', id)
    .where('revoked_at', 'is', null)
    .execute()
  await tx.deleteFrom('team_members').where('team_id', '=', id).execute()
  await tx.deleteFrom('channels').where('team_id', '=', id).execute()
  await tx.deleteFrom('registry_logins').where('team_id', '=', id).execute()
  await tx.deleteFrom('secrets').where('team_id', '=', id).execute()
  await tx
    .updateTable('invitations')
    .set({ revoked_at: now })
    .where('team_id', '=', id)
    .where('accepted_at', 'is', null)
    .where('revoked_at', 'is', null)
    .execute()
}

/** Something of a deleted team that is still there. */
export interface Remnant {
  readonly teamId: string
  readonly kind: 'capsule' | 'snapshot'
  /** Of a capsule its id, of a snapshot its name. */
  readonly name: string
}

/** What deleted teams have left, some of it at a time. */
export async function listRemnants(db: Db, limit: number): Promise<Remnant[]> {
  const { rows } = await sql<Remnant>`SELECT t.id AS "teamId", 'capsule' AS "kind", c.id AS "name"
      FROM teams AS t JOIN capsules AS c ON c.team_id = t.id
      WHERE t.deleted_at IS NOT NULL AND t.swept_at IS NULL AND c.state NOT IN ('stopping', 'stopped')
    UNION ALL SELECT t.id, 'snapshot', s.name FROM teams AS t JOIN snapshots AS s ON s.team_id = t.id
      WHERE t.deleted_at IS NOT NULL AND t.swept_at IS NULL AND s.deleted_at IS NULL
    LIMIT ${limit}`.execute(db)
  return rows
}

/** Notes which deleted teams have nothing left, so that nobody looks there again. */
export async function markSwept(db: Db): Promise<void> {
  await db
    .updateTable('teams')
    .set({ swept_at: sql<Date>`now()` })
    .where('deleted_at', 'is not', null)
    .where('swept_at', 'is', null)
    .where(sql<SqlBool>`NOT EXISTS (SELECT FROM capsules AS c WHERE c.team_id = teams.id AND c.state <> 'stopped')`)
    .where(sql<SqlBool>`NOT EXISTS (SELECT FROM snapshots AS s WHERE s.team_id = teams.id AND s.deleted_at IS NULL)`)
    .execute()
}

/** For people; `undefined` where there is no such team. */
export async function findTeamName(db: Db, id: string): Promise<string | undefined> {
  return (await db.selectFrom('teams').select('name').where('id', '=', id).executeTakeFirst())?.name
}
