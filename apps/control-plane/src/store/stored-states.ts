import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import type { StateLeftoverRow, StoredStateRow } from './schema.js'

/** At once: each is a call. */
const MAX_LEFTOVERS = 20

/**
 * A team that hibernates all the time never has a moment in which nobody stores. Once waste has waited for the first of these, nothing is begun to be stored,
 * until it was collected or the second is over: then storing has its turn again.
 */
const TURN = { storeMs: 15 * 60_000, waitMs: 45 * 60_000 } as const
const waitedMs = sql`(extract(epoch FROM now() - waits_since) * 1000)`

/** In place of the number of a fetch: of what was stored, and not fetched. */
const STORED_THERE = 0

/** Whose states, and by which key of the platform they are encrypted. */
export interface StoredTeamRef {
  readonly team_id: string
  readonly sealed_by: string
}

/**
 * Notes that a state is about to be stored; until it is whole nothing of the team is collected.
 * @returns layers that the store has, which stay there meanwhile; `undefined` while somebody collects, or has waited for it for long
 */
export async function beginStored(
  tx: Db,
  state: StoredTeamRef & { readonly id: string; readonly capsule_id: string },
): Promise<readonly string[] | undefined> {
  const { team_id, sealed_by } = state
  const team = { team_id, sealed_by }
  await tx
    .insertInto('stored_teams')
    .values(team)
    .onConflict((conflict) => conflict.doNothing())
    .execute()
  const { isCollected, isTheirTurn } = await lockTeam(tx, team)
  // Whoever has begun goes on, however often it is begun anew.
  if (isCollected || (isTheirTurn && (await findStored(tx, state.id)) === undefined)) return undefined
  const layers = await listLayers(tx, team)
  await tx
    .insertInto('stored_states')
    .values({ ...state, layers: [...layers] })
    .onConflict((conflict) => conflict.doNothing())
    .execute()
  return layers
}

interface FinishedState {
  readonly bytes: number
  readonly layers: readonly string[]
  /** Of its capsule. */
  readonly generation: number
}

/** The state is whole in the store, and stands on these layers, which are too. */
export async function finishStored(tx: Db, id: string, { bytes, layers, generation }: FinishedState): Promise<void> {
  const whole = { bytes, generation, layers: [...layers], whole_at: sql<Date>`now()` }
  await tx.updateTable('stored_states').set(whole).where('id', '=', id).execute()
  await sql`INSERT INTO stored_layers (team_id, sealed_by, digest)
    SELECT team_id, sealed_by, unnest(layers) FROM stored_states WHERE id = ${id} ON CONFLICT DO NOTHING`.execute(tx)
}

export async function findStored(db: Db, id: string): Promise<StoredStateRow | undefined> {
  return await db.selectFrom('stored_states').selectAll().where('id', '=', id).executeTakeFirst()
}

/** States that are no capsule's, which none goes back to, and that nobody is storing. */
export async function listUnwantedStates(db: Db, limit: number): Promise<StoredStateRow[]> {
  return await db
    .selectFrom('stored_states as s')
    .selectAll()
    .where(sql<SqlBool>`NOT EXISTS (SELECT FROM capsules AS c WHERE s.id IN (c.stored_state, c.fallback_state))`)
    .where(
      sql<SqlBool>`NOT EXISTS (SELECT FROM operations AS o WHERE o.capsule_id = s.capsule_id AND o.kind = 'hibernate'
        AND o.state = 'running' AND o.params ->> 'stateId' = s.id)`,
    )
    .orderBy('created_at')
    .limit(limit)
    .execute()
}

/** A state is not in the store any more; what its chunks took is waste unless others share them. */
export async function dropStored(db: Db, { id, team_id, sealed_by }: StoredStateRow): Promise<void> {
  await db.deleteFrom('stored_states').where('id', '=', id).execute()
  const waste = db.updateTable('stored_teams').set({ has_waste: true })
  await waste.where('team_id', '=', team_id).where('sealed_by', '=', sealed_by).execute()
}

/** Teams that have waste. */
export async function listWasteful(db: Db): Promise<StoredTeamRef[]> {
  return await db.selectFrom('stored_teams').select(['team_id', 'sealed_by']).where('has_waste', '=', true).execute()
}

/** What a team has in the store. */
export interface TeamHoldings {
  readonly states: readonly string[]
  /** Digests of layers that these stand on. */
  readonly layers: readonly string[]
  /** The same of those that none stands on. */
  readonly unneeded: readonly string[]
}

/**
 * Begins to collect what a team has in vain: for `forMs` nobody begins to store anything for it.
 * @returns what its states stand on and what not; `undefined` while somebody stores, or collects already
 */
export async function beginCollecting(db: Db, team: StoredTeamRef, forMs: number): Promise<TeamHoldings | undefined> {
  return await db.transaction().execute(async (tx) => {
    if ((await lockTeam(tx, team)).isCollected) return undefined
    const ofTeam = tx.selectFrom('stored_states').select(['id', 'whole_at', 'layers'])
    const states = await ofTeam.where('team_id', '=', team.team_id).where('sealed_by', '=', team.sealed_by).execute()
    if (states.some(({ whole_at }) => whole_at === null)) {
      const isOver = sql`waits_since IS NULL OR ${waitedMs} >= ${TURN.waitMs}`
      await updateTeam(tx, team, { waits_since: sql<Date>`CASE WHEN ${isOver} THEN now() ELSE waits_since END` })
      return undefined
    }
    const until = sql<Date>`now() + ${forMs} * interval '1 millisecond'`
    await updateTeam(tx, team, { collecting_until: until, waits_since: null })
    const needed = new Set(states.flatMap(({ layers }) => layers))
    const unneeded = (await listLayers(tx, team)).filter((digest) => !needed.has(digest))
    return { states: states.map(({ id }) => id), layers: [...needed], unneeded }
  })
}

/** A layer is not in the store any more. */
export async function dropLayer(db: Db, { team_id, sealed_by }: StoredTeamRef, digest: string): Promise<void> {
  const ofTeam = db.deleteFrom('stored_layers').where('team_id', '=', team_id).where('sealed_by', '=', sealed_by)
  await ofTeam.where('digest', '=', digest).execute()
}

/** @param isClean whether nothing is left to collect */
export async function endCollecting(db: Db, team: StoredTeamRef, isClean: boolean): Promise<void> {
  await updateTeam(db, team, { collecting_until: null, ...(isClean && { has_waste: false }) })
}

/** A host has what was stored as this state, until it has freed that. */
export async function addLeftover(
  tx: Db,
  leftover: Omit<StateLeftoverRow, 'host_id' | 'created_at'> & { readonly host_id: string | null },
): Promise<void> {
  await tx
    .insertInto('state_leftovers')
    .values({ ...leftover, host_id: leftover.host_id ?? '' })
    .onConflict((conflict) => conflict.doNothing())
    .execute()
}

/** The hosts that have any; of the only one the name does not count. */
export async function listHostsOfLeftovers(db: Db): Promise<ReadonlySet<string>> {
  const rows = await db.selectFrom('state_leftovers').select('host_id').distinct().execute()
  return new Set(rows.map(({ host_id }) => host_id))
}

/** Of a host that has joined; `undefined`: of the only one. Of one capsule alone, where that is named. */
export async function listLeftovers(
  db: Db,
  joinedId: string | undefined,
  capsuleId?: string,
): Promise<StateLeftoverRow[]> {
  let query = db.selectFrom('state_leftovers').selectAll()
  if (joinedId !== undefined) query = query.where('host_id', '=', joinedId)
  if (capsuleId !== undefined) query = query.where('capsule_id', '=', capsuleId)
  return await query.orderBy('created_at').limit(MAX_LEFTOVERS).execute()
}

/**
 * Whether what a host has of a capsule by this fetch counts for nothing, or may: the fetch failed as far as whoever asked for it knows, or something of the capsule that
 * was stored from there has yet to be freed. Which fetch that came by says nothing then: it may be later than all that the row counts, as after a restore.
 */
export async function isLeftover(
  db: Db,
  joinedId: string | undefined,
  { capsule_id, attempt }: Pick<StateLeftoverRow, 'capsule_id' | 'attempt'>,
): Promise<boolean> {
  let query = db.selectFrom('state_leftovers').select('state_id').where('capsule_id', '=', capsule_id)
  if (joinedId !== undefined) query = query.where('host_id', '=', joinedId)
  return (await query.where('attempt', 'in', [attempt, STORED_THERE]).executeTakeFirst()) !== undefined
}

export async function dropLeftover(db: Db, { state_id, host_id, attempt }: StateLeftoverRow): Promise<void> {
  const ofState = db.deleteFrom('state_leftovers').where('state_id', '=', state_id).where('host_id', '=', host_id)
  await ofState.where('attempt', '=', attempt).execute()
}

/** Hosts that were removed free nothing any more. */
export async function dropLeftoversOfGone(db: Db): Promise<void> {
  const gone = db.selectFrom('hosts').select('id').where('removed_at', 'is not', null)
  await db.deleteFrom('state_leftovers').where('host_id', 'in', gone).execute()
}

/** Whether nothing new is stored for a team until what others store for it has ended, for whoever would have a capsule stand still that long. */
export async function isStoringHeld(db: Db, team: StoredTeamRef): Promise<boolean> {
  return (await turnOf(db, team).executeTakeFirst())?.isTheirTurn === true
}

/** Holds the team's row until the end of the transaction. */
async function lockTeam(tx: Db, team: StoredTeamRef) {
  return (await turnOf(tx, team).forUpdate().executeTakeFirst()) ?? { isCollected: false, isTheirTurn: false }
}

function turnOf(db: Db, { team_id, sealed_by }: StoredTeamRef) {
  return db
    .selectFrom('stored_teams')
    .select([
      sql<boolean>`coalesce(collecting_until > now(), false)`.as('isCollected'),
      sql<boolean>`coalesce(${waitedMs} BETWEEN ${TURN.storeMs} AND ${TURN.waitMs}, false)`.as('isTheirTurn'),
    ])
    .where('team_id', '=', team_id)
    .where('sealed_by', '=', sealed_by)
}

async function listLayers(db: Db, { team_id, sealed_by }: StoredTeamRef): Promise<readonly string[]> {
  const ofTeam = db.selectFrom('stored_layers').select('digest').where('team_id', '=', team_id)
  const rows = await ofTeam.where('sealed_by', '=', sealed_by).execute()
  return rows.map(({ digest }) => digest)
}

async function updateTeam(db: Db, { team_id, sealed_by }: StoredTeamRef, change: object): Promise<void> {
  const update = db.updateTable('stored_teams').set(change).where('team_id', '=', team_id)
  await update.where('sealed_by', '=', sealed_by).execute()
}
