import { sql } from 'kysely'
import type { Db } from './database.js'

/** What all control planes together know of a team's calls in a minute. */
export interface TeamCalls {
  readonly teamId: string
  readonly calls: number
  /** Of the team or its plan: null is the platform's default, 0 no limit. */
  readonly limit: number | null
}

/** Adds calls of the minute to what others have counted. Teams that are gone are left out of the answer. */
export async function addTeamCalls(
  db: Db,
  minute: number,
  counts: readonly { readonly teamId: string; readonly calls: number }[],
): Promise<TeamCalls[]> {
  const rows = JSON.stringify(counts.map(({ teamId, calls }) => ({ team_id: teamId, calls })))
  // In one order, so that two control planes never wait for each other.
  const { rows: answer } = await sql<TeamCalls>`WITH counted AS (
      INSERT INTO team_calls AS c (team_id, minute, calls)
      SELECT said.team_id, ${minute}, said.calls
      FROM json_to_recordset(${rows}::json) AS said (team_id text, calls bigint) JOIN teams ON teams.id = said.team_id
      ORDER BY said.team_id
      ON CONFLICT (team_id) DO UPDATE SET
        calls = CASE WHEN c.minute = excluded.minute THEN c.calls + excluded.calls ELSE excluded.calls END,
        minute = excluded.minute
        WHERE c.minute <= excluded.minute
      RETURNING team_id, calls)
    SELECT counted.team_id AS "teamId", counted.calls AS "calls",
      coalesce(t.max_calls_per_min, p.max_calls_per_min) AS "limit"
    FROM counted JOIN teams AS t ON t.id = counted.team_id LEFT JOIN plans AS p ON p.name = t.plan`.execute(db)
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
