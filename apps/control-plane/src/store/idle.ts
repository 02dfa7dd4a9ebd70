import type { AwakeReason } from '@wrenn/protocol'
import { sql } from 'kysely'
import type { Db } from './database.js'
import type { CapsuleRow } from './schema.js'

/** A capsule whose idle timeout seems over; its host may know better. */
export interface DueCapsule {
  readonly id: string
  readonly team_id: string
}

interface IdleQuery {
  /** @default all of them */
  readonly hostId?: string | undefined
  readonly firstMs: number
  readonly maxMs: number
}

/**
 * Running capsules that nobody used for their timeout, the longest first. One whose pause failed since it was used is left
 * alone for a while, twice as long after every failure.
 */
export async function findIdle(
  db: Db,
  limit: number,
  { hostId, firstMs, maxMs }: IdleQuery,
): Promise<readonly DueCapsule[]> {
  const onHost = hostId === undefined ? sql`true` : sql`c.host_id = ${hostId}`
  const { rows } = await sql<DueCapsule>`SELECT c.id, c.team_id FROM capsules AS c
    CROSS JOIN LATERAL (SELECT coalesce(c.last_active_at, c.started_at, c.created_at) AS since) AS used
    CROSS JOIN LATERAL (
      SELECT count(*) AS failures, max(o.updated_at) AS failed_at FROM operations AS o
      WHERE o.capsule_id = c.id AND o.kind = 'pause' AND o.state = 'failed' AND o.updated_at > used.since
    ) AS tried
    WHERE c.state = 'running' AND c.desired_state = 'running' AND c.timeout_sec > 0 AND ${onHost}
      AND used.since + c.timeout_sec * interval '1 second' <= now()
      AND (tried.failures = 0 OR tried.failed_at
        + least(${maxMs}::float8, ${firstMs}::float8 * power(2, least(tried.failures - 1, 20))) * interval '1 millisecond' <= now())
    ORDER BY used.since LIMIT ${limit}`.execute(db)
  return rows
}

/** A capsule that has been paused for long. */
export type RestedCapsule = DueCapsule & Pick<CapsuleRow, 'generation'>

/**
 * Paused capsules, without checkpoints, that nobody used for `afterSec`, the longest first. One that failed to hibernate since then is left alone for a
 * while, twice as long after every failure. None while `limit` hibernate already.
 */
export async function findRested(
  db: Db,
  afterSec: number,
  limit: number,
  { firstMs, maxMs }: Pick<IdleQuery, 'firstMs' | 'maxMs'>,
): Promise<readonly RestedCapsule[]> {
  const { rows } = await sql<RestedCapsule>`SELECT c.id, c.team_id, c.generation FROM capsules AS c
    CROSS JOIN LATERAL (
      SELECT count(*) AS failures, max(o.updated_at) AS failed_at FROM operations AS o
      WHERE o.capsule_id = c.id AND o.kind = 'hibernate' AND o.state = 'failed' AND o.updated_at > c.paused_at
    ) AS tried
    WHERE c.state = 'paused' AND c.desired_state = 'paused'
      AND c.paused_at + ${afterSec}::float8 * interval '1 second' <= now()
      AND NOT EXISTS (SELECT FROM checkpoints AS p WHERE p.capsule_id = c.id)
      AND NOT EXISTS (SELECT FROM operations AS o WHERE o.capsule_id = c.id AND o.state = 'running')
      AND (tried.failures = 0 OR tried.failed_at
        + least(${maxMs}::float8, ${firstMs}::float8 * power(2, least(tried.failures - 1, 20))) * interval '1 millisecond' <= now())
    ORDER BY c.paused_at LIMIT greatest(0, ${limit}::bigint
      - (SELECT count(*) FROM operations AS r WHERE r.kind = 'hibernate' AND r.state = 'running'))`.execute(db)
  return rows
}

/** Records that a capsule is in use, and by what: its timeout starts anew. */
export async function keepAwake(db: Db, id: string, reasons: readonly AwakeReason[]): Promise<void> {
  await sql`UPDATE capsules SET awake_because = ${JSON.stringify(reasons)}::jsonb,
      last_active_at = greatest(last_active_at, now())
    WHERE id = ${id} AND state = 'running'`.execute(db)
}

/**
 * Records when a capsule was used last, as its host knows.
 * @returns whether its timeout is over all the same
 */
export async function recordUse(db: Db, id: string, at: Date): Promise<boolean> {
  const { rows } = await sql<{ isOver: boolean }>`UPDATE capsules SET awake_because = NULL,
      last_active_at = greatest(last_active_at, least(${at.toISOString()}::timestamptz, now()))
    WHERE id = ${id} AND state = 'running'
    RETURNING timeout_sec > 0 AND last_active_at + timeout_sec * interval '1 second' <= now() AS "isOver"`.execute(db)
  return rows[0]?.isOver ?? false
}
