import type { BuildState } from '@wrenn/protocol'
import { type Insertable, type RawBuilder, type SqlBool, sql, type Updateable } from 'kysely'
import type { Db } from './database.js'
import type {
  BuildPlan,
  BuildReason,
  StepTrace,
  TemplateBuildInfo,
  TemplateBuildRow,
  TemplateBuildsTable,
} from './schema.js'

/** States in which a build may still become ready. */
const open = ['draft', 'waiting', 'building'] as const satisfies readonly BuildState[]

const columns = [
  'id',
  'team_id',
  'name',
  'state',
  'vcpus',
  'memory_mib',
  'actor',
  'attempts',
  'failures',
  'due_at',
  'deadline_at',
  'capsule_id',
  'log_count',
  'log_bytes',
  'snapshot_id',
  'tags',
  'steps',
  'cached_steps',
  'reason',
  'created_at',
  'ended_at',
] as const satisfies readonly (keyof TemplateBuildInfo)[]

/** What is told of a build. The address of a person is not for all who may see builds. */
const told = [
  ...columns,
  sql<string | null>`(SELECT users.name FROM users WHERE users.id = template_builds.actor ->> 'id')`.as('person'),
] as const

/** Adds a build. */
export async function insertBuild(db: Db, build: Insertable<TemplateBuildsTable>): Promise<TemplateBuildInfo> {
  return await db.insertInto('template_builds').values(build).returning(told).executeTakeFirstOrThrow()
}

/** A build of the team. */
export async function findBuild(db: Db, teamId: string, id: string): Promise<TemplateBuildInfo | undefined> {
  return await db
    .selectFrom('template_builds')
    .select(told)
    .where('team_id', '=', teamId)
    .where('id', '=', id)
    .executeTakeFirst()
}

interface BuildFilter {
  /** Of the template. */
  readonly name?: string | undefined
  /** `open`: those that have not ended. */
  readonly state?: BuildState | 'open' | undefined
  /** Those that were begun before this build; none, when there is none of that id any more. */
  readonly before?: string | undefined
  readonly limit: number
}

/** Builds of a team, newest first. */
export async function listBuilds(
  db: Db,
  teamId: string,
  { name, state, before, limit }: BuildFilter,
): Promise<TemplateBuildInfo[]> {
  let query = db.selectFrom('template_builds').select(told).where('team_id', '=', teamId)
  if (name !== undefined) query = query.where('name', '=', name)
  if (state !== undefined) query = query.where('state', 'in', state === 'open' ? open : [state])
  if (before !== undefined) {
    query = query.where(
      sql<SqlBool>`(created_at, id) < (SELECT created_at, id FROM template_builds WHERE team_id = ${teamId} AND id = ${before})`,
    )
  }
  return await query.orderBy('created_at', 'desc').orderBy('id', 'desc').limit(limit).execute()
}

/** What the last build before this one that made the same template was made of. */
export async function findTraceBefore(
  db: Db,
  { id, team_id: teamId, name, created_at: createdAt }: TemplateBuildInfo,
): Promise<readonly StepTrace[] | undefined> {
  const row = await db
    .selectFrom('template_builds')
    .select('trace')
    .where('team_id', '=', teamId)
    .where('name', '=', name)
    .where('id', '<>', id)
    .where('state', '=', 'ready')
    .where('trace', 'is not', null)
    .where('created_at', '<=', createdAt)
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row?.trace ?? undefined
}

/** Ends one build that has not ended. @returns it, when it had not */
export async function cancelBuild(
  tx: Db,
  teamId: string,
  id: string,
  reason: BuildReason,
): Promise<TemplateBuildInfo | undefined> {
  return await tx
    .updateTable('template_builds')
    .set({ state: 'cancelled', ended_at: sql<Date>`now()`, plan: null, reason: JSON.stringify(reason) })
    .where('team_id', '=', teamId)
    .where('id', '=', id)
    .where('state', 'in', open)
    .returning(told)
    .executeTakeFirst()
}

/** How many builds of a team have not ended. */
export async function countOpenBuilds(db: Db, teamId: string): Promise<number> {
  const row = await db
    .selectFrom('template_builds')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('team_id', '=', teamId)
    .where('state', 'in', open)
    .executeTakeFirstOrThrow()
  return row.count
}

/** The build of the template that began last of those that have not ended. */
export async function findOpenBuild(db: Db, teamId: string, name: string): Promise<TemplateBuildInfo | undefined> {
  return await db
    .selectFrom('template_builds')
    .select(told)
    .where('team_id', '=', teamId)
    .where('name', '=', name)
    .where('state', 'in', open)
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .executeTakeFirst()
}

/** Whether this build of the team, or an earlier one of its template, has not ended. */
export async function isBuildOpen(db: Db, teamId: string, id: string): Promise<boolean> {
  const row = await db
    .selectFrom('template_builds as asked')
    .innerJoin('template_builds as b', (join) =>
      join.onRef('b.team_id', '=', 'asked.team_id').onRef('b.name', '=', 'asked.name'),
    )
    .select('b.id')
    .where('asked.team_id', '=', teamId)
    .where('asked.id', '=', id)
    .whereRef('b.created_at', '<=', 'asked.created_at')
    .where('b.state', 'in', open)
    .executeTakeFirst()
  return row !== undefined
}

/** Says of what a build is made, once; `undefined` when that was said before, or it has ended. */
export async function planBuild(
  db: Db,
  id: string,
  plan: BuildPlan,
  trace: readonly StepTrace[],
): Promise<TemplateBuildInfo | undefined> {
  return await db
    .updateTable('template_builds')
    .set({
      state: 'waiting',
      plan: JSON.stringify(plan),
      trace: JSON.stringify(trace),
      steps: trace.length,
      due_at: sql<Date>`now()`,
    })
    .where('id', '=', id)
    .where('state', '=', 'draft')
    .returning(told)
    .executeTakeFirst()
}

/**
 * Takes a build that is due, for `leaseMs`: whoever has it carries it out, and when it dies the build is due again. The first take sets
 * its deadline. However many builds a team has waiting, those with fewer under way come before it, and then those whose last one
 * began earlier.
 */
export async function takeBuild(db: Db, leaseMs: number, maxMs: number): Promise<TemplateBuildRow | undefined> {
  const { rows } = await sql<TemplateBuildRow>`UPDATE template_builds SET
      state = 'building',
      attempts = attempts + 1,
      due_at = now() + ${leaseMs} * interval '1 millisecond',
      deadline_at = coalesce(deadline_at, now() + ${maxMs} * interval '1 millisecond')
    WHERE id = (
      SELECT b.id FROM template_builds b
      CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE state = 'building' AND due_at > now()) AS under_way, max(deadline_at) AS latest
        FROM template_builds WHERE team_id = b.team_id
      ) team
      WHERE b.state IN ('waiting', 'building') AND b.due_at <= now()
      ORDER BY team.under_way, team.latest NULLS FIRST, b.due_at LIMIT 1 FOR UPDATE OF b SKIP LOCKED
    )
    RETURNING *`.execute(db)
  return rows[0]
}

type Held = Pick<TemplateBuildRow, 'id' | 'attempts'>

/** Changes a build that is still this attempt's. @returns whether it is */
export async function patchHeldBuild(db: Db, held: Held, patch: Updateable<TemplateBuildsTable>): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable('template_builds')
    .set(patch)
    .where('id', '=', held.id)
    .where('attempts', '=', held.attempts)
    .where('state', '=', 'building')
    .executeTakeFirst()
  return numUpdatedRows > 0n
}

/** Holds it for longer. @returns whether it is still this attempt's */
export async function renewBuild(db: Db, held: Held, leaseMs: number): Promise<boolean> {
  return await patchHeldBuild(db, held, { due_at: inMs(leaseMs) })
}

/** Lets it be taken again after `delayMs`; `hasFailed`: because this attempt did. */
export async function postponeBuild(db: Db, held: Held, delayMs: number, hasFailed: boolean): Promise<boolean> {
  const failures = sql<number>`failures + ${hasFailed ? 1 : 0}`
  const { numUpdatedRows } = await db
    .updateTable('template_builds')
    .set({ state: 'waiting', due_at: inMs(delayMs), failures })
    .where('id', '=', held.id)
    .where('attempts', '=', held.attempts)
    .where('state', '=', 'building')
    .executeTakeFirst()
  return numUpdatedRows > 0n
}

/**
 * Keeps a build as it is until the end of the transaction.
 * @returns whether its time is over, by which it never becomes ready; `undefined` when it is not this attempt's
 */
export async function lockHeldBuild(tx: Db, held: Held): Promise<{ readonly isLate: boolean } | undefined> {
  return await tx
    .selectFrom('template_builds')
    .select(sql<boolean>`deadline_at <= clock_timestamp()`.as('isLate'))
    .where('id', '=', held.id)
    .where('attempts', '=', held.attempts)
    .where('state', '=', 'building')
    .forUpdate()
    .executeTakeFirst()
}

interface BuildEnd {
  readonly state: 'ready' | 'error' | 'cancelled'
  readonly reason?: BuildReason
  readonly snapshotId?: string
}

/** Ends a build that is still this attempt's; of what it was made is of no use afterwards. @returns whether it was */
export async function endHeldBuild(tx: Db, held: Held, { state, reason, snapshotId }: BuildEnd): Promise<boolean> {
  return await patchHeldBuild(tx, held, {
    state,
    ended_at: sql<Date>`now()`,
    plan: null,
    ...(reason === undefined ? {} : { reason: JSON.stringify(reason) }),
    ...(snapshotId === undefined ? {} : { snapshot_id: snapshotId }),
  })
}

/** Ends all builds of a template that have not ended. @returns them */
export async function cancelBuilds(tx: Db, teamId: string, name: string, reason: BuildReason) {
  return await tx
    .updateTable('template_builds')
    .set({ state: 'cancelled', ended_at: sql<Date>`now()`, plan: null, reason: JSON.stringify(reason) })
    .where('team_id', '=', teamId)
    .where('name', '=', name)
    .where('state', 'in', open)
    .returning(told)
    .execute()
}

/** Ends builds of which nobody has said within `maxMs` what they are made of. */
export async function expireDrafts(db: Db, maxMs: number, reason: BuildReason): Promise<void> {
  await db
    .updateTable('template_builds')
    .set({ state: 'cancelled', ended_at: sql<Date>`now()`, plan: null, reason: JSON.stringify(reason) })
    .where('state', '=', 'draft')
    .where(sql<SqlBool>`created_at < now() - ${maxMs} * interval '1 millisecond'`)
    .execute()
}

export type LeftCapsule = Pick<TemplateBuildRow, 'id' | 'team_id' | 'capsule_id'>

/** Builds that have ended and whose capsules may still be there. */
export async function listLeftCapsules(db: Db, limit: number): Promise<LeftCapsule[]> {
  return await db
    .selectFrom('template_builds')
    .select(['id', 'team_id', 'capsule_id'])
    .where('ended_at', 'is not', null)
    .where('capsule_id', 'is not', null)
    .limit(limit)
    .execute()
}

/** Notes that the capsule of an ended build is gone. */
export async function forgetBuildCapsule(db: Db, id: string, capsuleId: string): Promise<void> {
  await db
    .updateTable('template_builds')
    .set({ capsule_id: null })
    .where('id', '=', id)
    .where('capsule_id', '=', capsuleId)
    .execute()
}

interface Retention {
  readonly olderThanMs: number
  /** Of each team. */
  readonly kept: number
}

/** Forgets builds that ended too long ago, or after which too many of the team have ended, with what they said. */
export async function pruneBuilds(db: Db, { olderThanMs, kept }: Retention, limit: number): Promise<void> {
  await sql`DELETE FROM template_builds WHERE id IN (
      SELECT id FROM (
        SELECT id, capsule_id, ended_at, row_number() OVER (PARTITION BY team_id ORDER BY ended_at DESC, id) AS place
        FROM template_builds WHERE ended_at IS NOT NULL
      ) AS ended
      WHERE capsule_id IS NULL AND (place > ${kept} OR ended_at < now() - ${olderThanMs} * interval '1 millisecond')
      LIMIT ${limit}
    )`.execute(db)
}

/** What links for a purpose are signed with. */
export async function findSigningKey(db: Db, purpose: string): Promise<string> {
  const { secret } = await db
    .selectFrom('signing_keys')
    .select('secret')
    .where('purpose', '=', purpose)
    .executeTakeFirstOrThrow()
  return secret
}

function inMs(ms: number): RawBuilder<Date> {
  return sql<Date>`now() + ${ms} * interval '1 millisecond'`
}
