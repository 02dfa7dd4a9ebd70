import { sql } from 'kysely'
import type { Db } from './database.js'

/** What a control plane tells of a team's calls in a minute, and those that it is about to let through. */
export interface CallBooking {
  readonly teamId: string
  /** To be added to the minute's; below 0 for calls that were booked and not made. */
  readonly calls: number
  /** Calls that wait: so many are booked, if they fit. */
  readonly needed: number
  /** Calls to come: so many are booked, but never most of what is left. */
  readonly wanted: number
}

/** What all control planes together know of a team's calls in a minute. */
export interface TeamCalls {
  readonly teamId: string
  /** Made or booked; null where somebody has begun a later minute. */
  readonly calls: number | null
  /** How many of the calls that it asked for the control plane may let through; null as `calls`. */
  readonly granted: number | null
  /** Of the team, its plan or the platform; 0: none. */
  readonly limit: number
}

/** A control plane takes no larger part of the calls that are left for those that do not wait yet, so that others find some too. */
const SHARE = 16

/**
 * Adds calls to the minute's, and books those that are asked for as far as the limit allows; without one none are booked. Teams that are gone are
 * left out of the answer.
 */
export async function bookTeamCalls(
  db: Db,
  minute: number,
  defaultLimit: number,
  bookings: readonly CallBooking[],
): Promise<TeamCalls[]> {
  const answer = await book(db, minute, defaultLimit, bookings)
  const missing = new Set(answer.flatMap(({ teamId, calls }) => (calls === null ? [teamId] : [])))
  if (missing.size === 0) return answer
  // Nobody has counted for them yet, or somebody has for a later minute.
  await sql`INSERT INTO team_calls (team_id, minute, calls)
    SELECT id, ${minute}, 0 FROM teams WHERE id = ANY(${[...missing]}) ORDER BY id
    ON CONFLICT (team_id) DO NOTHING`.execute(db)
  const left = bookings.filter(({ teamId }) => missing.has(teamId))
  const known = answer.filter(({ teamId }) => !missing.has(teamId))
  return [...known, ...(await book(db, minute, defaultLimit, left))]
}

/** One statement, so that a booking costs one way to the database. */
async function book(
  db: Db,
  minute: number,
  defaultLimit: number,
  bookings: readonly CallBooking[],
): Promise<TeamCalls[]> {
  const rows = JSON.stringify(
    bookings.map(({ teamId, calls, needed, wanted }) => ({ team_id: teamId, calls, needed, wanted })),
  )
  // Locked in one order, so that two control planes never wait for each other; what is locked is the newest, whatever the statement began with.
  const { rows: answer } = await sql<TeamCalls>`WITH said AS (
      SELECT s.*, coalesce(t.max_calls_per_min, p.max_calls_per_min, ${defaultLimit}::bigint) AS max
      FROM json_to_recordset(${rows}::json) AS s (team_id text, calls bigint, needed bigint, wanted bigint)
        JOIN teams AS t ON t.id = s.team_id LEFT JOIN plans AS p ON p.name = t.plan),
    held AS (
      SELECT team_id, CASE WHEN minute = ${minute} THEN calls ELSE 0 END AS calls
      FROM team_calls WHERE team_id IN (SELECT team_id FROM said) AND minute <= ${minute}
      ORDER BY team_id FOR UPDATE),
    counted AS (
      SELECT said.*, greatest(0, held.calls + said.calls) AS made FROM said JOIN held ON held.team_id = said.team_id),
    booked AS MATERIALIZED (
      SELECT team_id, made, CASE WHEN max = 0 THEN 0
        ELSE greatest(0, least(max - made, greatest(needed, least(wanted, (max - made) / ${SHARE}::bigint)))) END AS granted
      FROM counted),
    changed AS (
      UPDATE team_calls AS c SET minute = ${minute}, calls = booked.made + booked.granted
      FROM booked WHERE c.team_id = booked.team_id)
    SELECT said.team_id AS "teamId", said.max AS "limit", booked.made + booked.granted AS "calls", booked.granted AS "granted"
    FROM said LEFT JOIN booked ON booked.team_id = said.team_id`.execute(db)
  return answer
}

/** Of a team in a minute, as far as control planes have said. */
export async function findTeamCalls(db: Db, teamId: string, minute: number): Promise<number> {
  const row = await db
    .selectFrom('team_calls')
    .select('calls')
    .where('team_id', '=', teamId)
    .where('minute', '=', minute)
    .executeTakeFirst()
  return row?.calls ?? 0
}
