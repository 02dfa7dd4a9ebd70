import { sql } from 'kysely'
import type { Db } from './database.js'
import type { AuditChainRow, AuditRow } from './schema.js'

/** Teams with entries that have no place in their chain yet. */
export async function teamsWithOpenEntries(db: Db): Promise<string[]> {
  const rows = await db.selectFrom('audit_log').select('team_id').distinct().where('seq', 'is', null).execute()
  return rows.map(({ team_id }) => team_id)
}

/**
 * Holds a team's chain until the end of the transaction; writers of entries do not wait for it. It is begun when there is none.
 * @param firstPrevHash what the first entry of every chain follows
 */
export async function lockChain(tx: Db, teamId: string, firstPrevHash: string): Promise<AuditChainRow> {
  const begin = { team_id: teamId, last_hash: firstPrevHash }
  await tx
    .insertInto('audit_chains')
    .values(begin)
    .onConflict((conflict) => conflict.doNothing())
    .execute()
  return await tx
    .selectFrom('audit_chains')
    .selectAll()
    .where('team_id', '=', teamId)
    .forUpdate()
    .executeTakeFirstOrThrow()
}

/** The oldest entries without a place. */
export async function openEntries(tx: Db, teamId: string, limit: number): Promise<AuditRow[]> {
  return await tx
    .selectFrom('audit_log')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('seq', 'is', null)
    .orderBy('at')
    .orderBy('id')
    .limit(limit)
    .execute()
}

/** An entry with its place. */
export interface ChainedEntry {
  readonly id: string
  readonly seq: number
  readonly prev_hash: string
  readonly hash: string
}

/** Gives entries their places; they come after what the chain has. */
export async function appendToChain(tx: Db, teamId: string, entries: readonly ChainedEntry[]): Promise<void> {
  const last = entries.at(-1)
  if (last === undefined) return
  await sql`UPDATE audit_log AS a SET seq = c.seq, prev_hash = c.prev_hash, hash = c.hash
    FROM jsonb_to_recordset(${JSON.stringify(entries)}::jsonb) AS c (id text, seq bigint, prev_hash text, hash text)
    WHERE a.id = c.id`.execute(tx)
  const end = { last_seq: last.seq, last_hash: last.hash }
  await tx.updateTable('audit_chains').set(end).where('team_id', '=', teamId).execute()
}

/**
 * Forgets up to `limit` entries from the beginning of a team's chain, as far as all of them are older than `before`. What is left
 * begins with the hash of the last one that went.
 * @returns how many
 */
export async function pruneChain(db: Db, teamId: string, before: Date, limit: number): Promise<number> {
  return await db.transaction().execute(async (tx) => {
    const oldest = await tx
      .selectFrom('audit_log')
      .select(['seq', 'at'])
      .where('team_id', '=', teamId)
      .where('seq', 'is not', null)
      .orderBy('seq')
      .limit(limit)
      .execute()
    const kept = oldest.findIndex(({ at }) => at >= before)
    const gone = oldest.at(kept === -1 ? -1 : kept - 1)
    if (kept === 0 || gone?.seq === undefined || gone.seq === null) return 0
    await tx
      .updateTable('audit_chains')
      .set({ first_seq: gone.seq + 1 })
      .where('team_id', '=', teamId)
      .where('first_seq', '<=', gone.seq)
      .execute()
    const { numDeletedRows } = await tx
      .deleteFrom('audit_log')
      .where('team_id', '=', teamId)
      .where('seq', '<=', gone.seq)
      .executeTakeFirst()
    return Number(numDeletedRows)
  })
}

/** Every team that has a chain. */
export async function listChains(db: Db): Promise<string[]> {
  const rows = await db.selectFrom('audit_chains').select('team_id').execute()
  return rows.map(({ team_id }) => team_id)
}

/** The ends of every chain. */
export async function listChainEnds(db: Db): Promise<AuditChainRow[]> {
  return await db.selectFrom('audit_chains').selectAll().orderBy('team_id').execute()
}

/** Entries with a place after `afterSeq`, in their order. */
export async function listChained(db: Db, teamId: string, afterSeq: number, limit: number): Promise<AuditRow[]> {
  return await db
    .selectFrom('audit_log')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('seq', '>', afterSeq)
    .orderBy('seq')
    .limit(limit)
    .execute()
}
