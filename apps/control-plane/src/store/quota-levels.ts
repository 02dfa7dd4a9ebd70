import { sql } from 'kysely'
import type { Db } from './database.js'

/** What a team uses of something that is limited. */
export interface QuotaUse {
  /** As in the answer of `GET /v1/quota`. */
  readonly quota: string
  /** Before the change. */
  readonly before: number
  /** After it. */
  readonly used: number
  /** 0: none. */
  readonly limit: number
}

/** What is above it is noted, as a part of the limit: the lowest level of which anything is told. */
export const NEAR = 0.8

const raised = sql`quota_level(q.level, excluded.used, excluded."limit")`
/** Nobody is told of the same again within this time. */
const hasRested = (column: string) => sql`coalesce(${sql.ref(`q.${column}`)} < now() - interval '10 minutes', true)`
const columns = sql`team_id, quota, used, "limit", level, near_at, reached_at`
/** Triggers tell of what is reached now, by the time that is noted of it. */
const noted = sql`ON CONFLICT (team_id, quota) DO UPDATE SET
    used = excluded.used, "limit" = excluded."limit", level = ${raised},
    near_at = CASE WHEN ${raised} = 80 AND q.level < 80 AND ${hasRested('near_at')} THEN now() ELSE q.near_at END,
    reached_at = CASE WHEN ${raised} = 100 AND q.level < 100 AND ${hasRested('reached_at')} THEN now() ELSE q.reached_at END`
/** The same of a team of which nothing was noted. */
const first = sql`team_id, quota, used, "limit", level,
    CASE level WHEN 80 THEN now() END, CASE level WHEN 100 THEN now() END
  FROM (SELECT *, quota_level(0, used, "limit") AS level FROM said) AS said`

/**
 * Notes how near a team is to what it may use, in the transaction of what changes that, which has the team locked. A level that was left before the
 * change is reached anew.
 */
export async function noteQuotaUse(tx: Db, teamId: string, uses: readonly QuotaUse[]): Promise<void> {
  const said = sql`SELECT ${teamId}::text AS team_id, s.*
    FROM json_to_recordset(${JSON.stringify(uses)}::json) AS s (quota text, before bigint, used bigint, "limit" bigint)`
  await sql`UPDATE quota_levels AS q SET level = quota_level(q.level, said.before, said."limit")
    FROM (${said}) AS said WHERE q.team_id = said.team_id AND q.quota = said.quota
      AND q.level > quota_level(q.level, said.before, said."limit")`.execute(tx)
  await sql`WITH said AS (${said})
    INSERT INTO quota_levels AS q (${columns}) SELECT ${first} ${noted}`.execute(tx)
}

/**
 * The same for what files take, of these teams, and of those that were near their limit.
 * @param defaultLimit of a team that has none of its own or of its plan; 0: none
 */
export async function notePoolUse(tx: Db, teamIds: readonly string[], defaultLimit: number): Promise<void> {
  await sql`WITH limited AS (
      SELECT t.id AS team_id, coalesce(t.max_pool_bytes, p.max_pool_bytes, ${defaultLimit}::bigint) AS "limit",
        EXISTS (SELECT FROM quota_levels AS l WHERE l.team_id = t.id AND l.quota = 'pool_bytes' AND l.level > 0) AS "isRaised",
        (SELECT coalesce(sum(bytes), 0)::bigint FROM pool_usage AS u WHERE u.team_id = t.id) AS used
      FROM teams AS t LEFT JOIN plans AS p ON p.name = t.plan
      WHERE t.deleted_at IS NULL AND (t.id = ANY (${teamIds}::text[])
        OR t.id IN (SELECT l.team_id FROM quota_levels AS l WHERE l.quota = 'pool_bytes' AND l.level > 0))
    ), said AS (
      SELECT team_id, 'pool_bytes' AS quota, used, "limit" FROM limited
      WHERE "isRaised" OR quota_level(0, used, "limit") > 0 ORDER BY team_id
    )
    INSERT INTO quota_levels AS q (${columns}) SELECT ${first} ${noted}`.execute(tx)
}
