import { type CapsuleCommand, type CapsuleState, capsuleStates, nextState } from '@wrenn/protocol'
import { type Insertable, type RawBuilder, type SqlBool, sql, type Updateable } from 'kysely'
import type { Db } from './database.js'
import { renewedLife } from './lifetimes.js'
import { runPrepared } from './prepared.js'
import type { CapsuleRow, CapsulesTable } from './schema.js'

/** A row to insert; what has a default in the schema may be left out. */
export type NewCapsule = Insertable<CapsulesTable>
/** What may be written beside a move. State and generation change by `transition` only. */
export type CapsulePatch = Omit<Updateable<CapsulesTable>, 'id' | 'team_id' | 'state' | 'generation' | 'updated_at'>

/** Adds a capsule. To be called in a transaction with the operation that makes it, so that neither is there alone. */
export async function insertCapsule(db: Db, capsule: NewCapsule): Promise<CapsuleRow> {
  return await db.insertInto('capsules').values(capsule).returningAll().executeTakeFirstOrThrow()
}

/** A team's capsule, stopped ones too. */
export async function findCapsule(db: Db, teamId: string, id: string): Promise<CapsuleRow | undefined> {
  const query = db.selectFrom('capsules').selectAll().where('team_id', '=', teamId).where('id', '=', id)
  return (await runPrepared(db, query))[0]
}

/** Some capsules, oldest first. */
export async function findCapsules(db: Db, ids: readonly string[]): Promise<CapsuleRow[]> {
  if (ids.length === 0) return []
  return await db.selectFrom('capsules').selectAll().where('id', 'in', ids).orderBy('seq').execute()
}

/** For the reconciler and for operations, which act for no team. */
export async function findAnyCapsule(db: Db, id: string): Promise<CapsuleRow | undefined> {
  return await db.selectFrom('capsules').selectAll().where('id', '=', id).executeTakeFirst()
}

/** Holds a capsule's row until the end of the transaction: nobody else moves it. */
export async function lockCapsule(tx: Db, id: string): Promise<CapsuleRow | undefined> {
  return await tx.selectFrom('capsules').selectAll().where('id', '=', id).forNoKeyUpdate().executeTakeFirst()
}

/** Gives a capsule a token for its guest agent. @returns `undefined` when it has one already */
export async function openAgent(db: Db, id: string, token: string): Promise<CapsuleRow | undefined> {
  return await db
    .updateTable('capsules')
    .set({ access_token: token, updated_at: new Date() })
    .where('id', '=', id)
    .where('access_token', 'is', null)
    .returningAll()
    .executeTakeFirst()
}

/** Writes what is not part of the state; the generation stays. */
export async function patchCapsule(
  db: Db,
  id: string,
  patch: CapsulePatch & { readonly updated_at?: Date },
): Promise<CapsuleRow | undefined> {
  return await db.updateTable('capsules').set(patch).where('id', '=', id).returningAll().executeTakeFirst()
}

/** Capsules at a host that does not have their newest egress policy, as far as it said. */
export async function findEgressPending(db: Db): Promise<CapsuleRow[]> {
  return await db
    .selectFrom('capsules')
    .selectAll()
    .where(sql<SqlBool>`egress_revision <> egress_in_force`)
    .where('state', 'in', ['running', 'pausing', 'paused', 'resuming', 'error'])
    .where('observed_state', 'not in', ['absent', 'silent'])
    .execute()
}

/** Makes a capsule's egress policy newer than the revision that its host has; `undefined` when it is not older. */
export async function raiseEgress(db: Db, id: string, revision: number): Promise<CapsuleRow | undefined> {
  return await db
    .updateTable('capsules')
    .set({ egress_revision: revision + 1 })
    .where('id', '=', id)
    .where('egress_revision', '<', revision)
    .returningAll()
    .executeTakeFirst()
}

/** Capsules whose rules' secrets do not begin with `prefix`, as those of the current key do. */
export async function findSealedOtherwise(db: Db, prefix: string): Promise<string[]> {
  const rows = await db
    .selectFrom('capsules')
    .select('id')
    .where(sql<SqlBool>`not starts_with(egress_rules, ${prefix})`)
    .execute()
  return rows.map(({ id }) => id)
}

/** Replaces what a capsule's rules set by the same under another key, unless it was changed meanwhile. */
export async function resealEgressRules(
  db: Db,
  { id, egress_rules }: Pick<CapsuleRow, 'id' | 'egress_rules'>,
  sealed: string | null,
): Promise<void> {
  await db
    .updateTable('capsules')
    .set({ egress_rules: sealed })
    .where('id', '=', id)
    .where('egress_rules', '=', egress_rules)
    .execute()
}

/** Writes what a host reported of a capsule, unless it has moved since `row` was read. */
export async function refreshCapsule(db: Db, row: CapsuleRow, patch: CapsulePatch): Promise<void> {
  await db
    .updateTable('capsules')
    .set(patch)
    .where('id', '=', row.id)
    .where('generation', '=', row.generation)
    .execute()
}

/** Of capsules that have not ended: what lists show when nothing else is asked for. */
export const liveStates: readonly CapsuleState[] = capsuleStates.filter(
  (each) => each !== 'stopped' && each !== 'error',
)

/** Which capsules; what is absent does not matter. */
export interface CapsuleFilter {
  readonly states?: readonly CapsuleState[] | undefined
  /** Any of these. */
  readonly templates?: readonly string[] | undefined
  readonly name?: string | undefined
  /** All of these. */
  readonly labels?: Readonly<Record<string, string>>
  readonly startedAfter?: Date | undefined
  /** Only capsules beyond this position, in the order of the list. */
  readonly beyondSeq?: number | undefined
  /** By age: `desc` is newest first. @default 'desc' */
  readonly order?: 'asc' | 'desc' | undefined
  readonly limit: number
}

/** In the order that the filter says. */
export async function listCapsules(db: Db, teamId: string, filter: CapsuleFilter): Promise<CapsuleRow[]> {
  const { states, templates, name, labels = {}, startedAfter, beyondSeq, order = 'desc', limit } = filter
  const noLabels = Object.keys(labels).length === 0
  let query = db.selectFrom('capsules').selectAll().where('team_id', '=', teamId)
  // In the text of the statement, so that a plan that is kept is made for these states.
  if (states !== undefined)
    query = query.where(
      'state',
      'in',
      states.map((each) => sql.lit(each)),
    )
  if (templates !== undefined) query = query.where('template', 'in', templates)
  if (name !== undefined) query = query.where('name', '=', name)
  if (startedAfter !== undefined) query = query.where(sql<SqlBool>`coalesce(started_at, created_at) > ${startedAfter}`)
  if (beyondSeq !== undefined) query = query.where('seq', order === 'desc' ? '<' : '>', beyondSeq)
  if (!noLabels) query = query.where(sql<SqlBool>`labels @> ${JSON.stringify(labels)}::jsonb`)
  const page = query.orderBy('seq', order).limit(limit)
  // Where what is filtered by is more or less frequent, no plan is good for all values; and clients must not choose what is kept.
  const isPlain = templates === undefined && name === undefined && startedAfter === undefined && noLabels
  const isCommon = isPlain && (states === undefined || states === liveStates)
  return isCommon ? await runPrepared(db, page) : await page.execute()
}

/** Whose capsules: those of a host, and with `orNone` those of which nobody knows the host. */
interface HostScope {
  readonly hostId: string
  readonly orNone: boolean
}

/** Every capsule that hosts may hold, or one of them: all but those known to be gone. */
export async function listForReconcile(db: Db, scope?: HostScope): Promise<CapsuleRow[]> {
  const held = heldByHosts(db)
  if (scope === undefined) return await held.execute()
  const { hostId, orNone } = scope
  const of = held.where((eb) => eb.or([eb('host_id', '=', hostId), ...(orNone ? [eb('host_id', 'is', null)] : [])]))
  return await of.execute()
}

/** The same of hosts that are not among these. */
export async function listOfOtherHosts(db: Db, hostIds: readonly string[]): Promise<CapsuleRow[]> {
  const others = sql<SqlBool>`id <> ALL (${hostIds}::text[]) AND EXISTS (SELECT FROM capsules AS c WHERE c.host_id = hosts.id AND c.state <> 'stopped')`
  const ids = (await db.selectFrom('hosts').select('id').where(others).execute()).map(({ id }) => id)
  return ids.length === 0 ? [] : await heldByHosts(db).where('host_id', 'in', ids).execute()
}

/** The same of which nobody has noted where they are, so many at most. */
export async function listOfNoHost(db: Db, limit: number): Promise<CapsuleRow[]> {
  const held = heldByHosts(db).where('host_id', 'is', null)
  // What hibernates is on none, and wakes on any.
  return await held.where('stored_state', 'is', null).orderBy('seq').limit(limit).execute()
}

/** Notes where such a capsule is: that host is compared with it from now on. */
export async function placeUnplaced(db: Db, id: string, hostId: string): Promise<void> {
  const unplaced = db.updateTable('capsules').set({ host_id: hostId }).where('id', '=', id).where('host_id', 'is', null)
  await unplaced.where('stored_state', 'is', null).execute()
}

function heldByHosts(db: Db) {
  return db
    .selectFrom('capsules')
    .selectAll()
    .where((eb) =>
      eb.or([
        eb('state', 'not in', ['stopped', 'error', 'hibernated']),
        eb.and([eb('state', '=', 'error'), eb('observed_state', 'is distinct from', 'absent')]),
      ]),
    )
}

/**
 * Whether the host of a capsule may have something of it that goes on: a guest, a saved state, or the files of a guest that has ended. A capsule whose create
 * failed is one of these until its host has said that it has not got it.
 * @param table what the capsules are called in the query
 */
export function mayBeOnHost(table: string): RawBuilder<SqlBool> {
  const [state, observed, desired] = ['state', 'observed_state', 'desired_state'].map((name) =>
    sql.ref(`${table}.${name}`),
  )
  return sql`(${state} NOT IN ('stopped', 'error')
    OR ${state} = 'error' AND ${observed} IS DISTINCT FROM 'absent' AND ${desired} <> 'stopped')`
}

/**
 * Forgets up to `limit` capsules that ended longer ago than `retentionMs`, with their operations.
 * One that its host may still hold is kept: the reconciler needs its row.
 * @returns how many capsules.
 */
export async function pruneEnded(db: Db, retentionMs: number, limit: number): Promise<number> {
  const before = sql<Date>`now() - ${retentionMs} * interval '1 millisecond'`
  const ended = db
    .selectFrom('capsules')
    .select('id')
    .where('state', 'in', ['stopped', 'error'])
    .where('updated_at', '<', before)
    .where((eb) => eb.or([eb('state', '=', 'stopped'), eb('observed_state', '=', 'absent')]))
    .limit(limit)
  const { numDeletedRows } = await db.deleteFrom('capsules').where('id', 'in', ended).executeTakeFirst()
  return Number(numDeletedRows)
}

/**
 * Forgets up to `limit` operations that ended longer ago than `retentionMs`; their keys may be used anew.
 * @returns how many.
 */
export async function pruneOperations(db: Db, retentionMs: number, limit: number): Promise<number> {
  const before = sql<Date>`now() - ${retentionMs} * interval '1 millisecond'`
  const ended = db
    .selectFrom('operations')
    .select('id')
    .where('state', '!=', 'running')
    .where('updated_at', '<', before)
    .limit(limit)
  const { numDeletedRows } = await db.deleteFrom('operations').where('id', 'in', ended).executeTakeFirst()
  await db.deleteFrom('snapshots').where('state', '=', 'deleted').where('deleted_at', '<', before).execute()
  return Number(numDeletedRows)
}

/**
 * The one place where a capsule changes state: applies `command` by the lifecycle table, if the row is still as `row`
 * (compare-and-set on its generation).
 * @returns the new row, or `undefined` when the command is not legal in the row's state or somebody else was faster.
 */
export async function transition(
  db: Db,
  row: CapsuleRow,
  command: CapsuleCommand,
  patch: CapsulePatch = {},
): Promise<CapsuleRow | undefined> {
  const state = nextState(row.state, command)
  if (state === undefined) return undefined
  return await db
    .updateTable('capsules')
    .set({ ...renewedLife(row, state), ...patch, state, generation: row.generation + 1, updated_at: new Date() })
    .where('id', '=', row.id)
    .where('generation', '=', row.generation)
    .where('state', '=', row.state)
    .returningAll()
    .executeTakeFirst()
}

/** Records what a host said; no state changes by it. */
export async function recordObservation(
  db: Db,
  ids: readonly string[],
  observed: CapsulesTable['observed_state'],
  at: Date,
): Promise<void> {
  if (ids.length === 0) return
  await db
    .updateTable('capsules')
    .set({ observed_state: observed, observed_at: at })
    .where('id', 'in', ids)
    .where('observed_state', 'is distinct from', observed)
    .execute()
}

/** Moves `last_active_at` forward for many capsules at once; never back. */
export async function touchCapsules(db: Db, times: ReadonlyMap<string, Date>): Promise<void> {
  const ids = [...times.keys()]
  const at = [...times.values()].map((time) => time.toISOString())
  await sql`UPDATE capsules AS c SET last_active_at = t.at
    FROM unnest(${ids}::text[], ${at}::timestamptz[]) AS t (id, at)
    WHERE c.id = t.id AND (c.last_active_at IS NULL OR c.last_active_at < t.at)`.execute(db)
}
