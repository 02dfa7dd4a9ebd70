import { channelIds } from '@wrenn/base'
import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import type { ChannelRow } from './schema.js'

interface NewChannel extends Pick<ChannelRow, 'id' | 'provider' | 'config' | 'target'> {
  readonly teamId: string
  readonly name: string
  readonly events: readonly string[]
}

/** An id for a channel: its secrets are encrypted for it before it is there. */
export const newChannelId = (): string => channelIds.create()

/** Adds a channel; `undefined` when the team has one of this name. */
export async function addChannel(tx: Db, { teamId, ...channel }: NewChannel): Promise<ChannelRow | undefined> {
  return await tx
    .insertInto('channels')
    .values({ ...channel, team_id: teamId })
    .onConflict((conflict) => conflict.columns(['team_id', 'name']).doNothing())
    .returningAll()
    .executeTakeFirst()
}

export async function countChannels(db: Db, teamId: string): Promise<number> {
  const { count } = await db
    .selectFrom('channels')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('team_id', '=', teamId)
    .executeTakeFirstOrThrow()
  return count
}

/** A page, newest first, after the one with the id `afterId`. */
export async function listChannels(
  db: Db,
  teamId: string,
  { afterId, limit }: { readonly afterId: string | undefined; readonly limit: number },
): Promise<ChannelRow[]> {
  let query = db.selectFrom('channels').selectAll().where('team_id', '=', teamId)
  if (afterId !== undefined) {
    query = query.where(
      sql<SqlBool>`(created_at, id) < (SELECT created_at, id FROM channels WHERE team_id = ${teamId} AND id = ${afterId})`,
    )
  }
  return await query.orderBy('created_at', 'desc').orderBy('id', 'desc').limit(limit).execute()
}

export async function findChannel(db: Db, teamId: string, id: string): Promise<ChannelRow | undefined> {
  return await db
    .selectFrom('channels')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('id', '=', id)
    .executeTakeFirst()
}

/** One of a team, held until the end of the transaction. */
export async function lockChannel(tx: Db, teamId: string, id: string): Promise<ChannelRow | undefined> {
  return await tx
    .selectFrom('channels')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('id', '=', id)
    .forNoKeyUpdate()
    .executeTakeFirst()
}

/** What people change; what is given, and no failure counts any more. */
export async function updateChannel(
  tx: Db,
  id: string,
  change: Partial<Pick<ChannelRow, 'name' | 'events' | 'enabled' | 'config' | 'target'>>,
): Promise<ChannelRow> {
  return await tx
    .updateTable('channels')
    .set((eb) => ({
      ...change,
      revision: eb('revision', '+', 1),
      ...{ problem: null, failures: 0, next_at: sql<Date>`now()`, updated_at: sql<Date>`now()` },
    }))
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

/** Keeps its secrets encrypted by another key; nothing else of it changes. */
export async function resealChannel(db: Db, { id, config: before }: ChannelRow, config: string): Promise<void> {
  await db.updateTable('channels').set({ config }).where('id', '=', id).where('config', '=', before).execute()
}

/** What it was to send and its log belong to no channel then: `pruneOrphans` forgets them bit by bit, however many there are. */
export async function dropChannel(tx: Db, id: string): Promise<void> {
  await tx.deleteFrom('channels').where('id', '=', id).execute()
}

/** Whether the team has another channel of this name. */
export async function hasChannelNamed(db: Db, teamId: string, name: string, exceptId: string): Promise<boolean> {
  const found = await db
    .selectFrom('channels')
    .select('id')
    .where('team_id', '=', teamId)
    .where('name', '=', name)
    .where('id', '<>', exceptId)
    .executeTakeFirst()
  return found !== undefined
}

/** How many channels are taken. */
export interface TakeLimits {
  readonly limit: number
  /** What a team has at a time, of all control planes; two that look at once may take as many each. */
  readonly perTeam: number
}

/**
 * Takes channels that have something to send, for `leaseMs`, those that have waited for longest first. Two control planes never have the same
 * one, and never wait for each other.
 */
export async function takeChannels(db: Db, { limit, perTeam }: TakeLimits, leaseMs: number): Promise<ChannelRow[]> {
  const isDue = sql<SqlBool>`enabled AND next_at <= now() AND (leased_until IS NULL OR leased_until < now())`
  const { rows } = await sql<ChannelRow>`WITH due AS (
      SELECT id, row_number() OVER (PARTITION BY team_id ORDER BY next_at, id) + (
        SELECT count(*) FROM channels AS o WHERE o.team_id = c.team_id AND o.leased_until >= now()
      ) AS place
      FROM channels AS c
      WHERE ${isDue} AND EXISTS (SELECT FROM channel_deliveries AS d WHERE d.channel_id = c.id AND d.state = 'pending')
    )
    UPDATE channels SET
      lease = lease + 1, leased_until = clock_timestamp() + ${leaseMs} * interval '1 millisecond'
    WHERE id IN (
      SELECT id FROM channels WHERE id IN (SELECT id FROM due WHERE place <= ${perTeam}) AND ${isDue}
      ORDER BY next_at LIMIT ${limit} FOR NO KEY UPDATE SKIP LOCKED
    )
    RETURNING *`.execute(db)
  return rows
}

/** Has it for `leaseMs` from now on, as it is now; `undefined` when somebody else has it, or it is gone or switched off. */
export async function renewChannel(
  db: Db,
  { id, lease }: ChannelRow,
  leaseMs: number,
): Promise<ChannelRow | undefined> {
  return await db
    .updateTable('channels')
    .set({ leased_until: sql<Date>`clock_timestamp() + ${leaseMs} * interval '1 millisecond'` })
    .where('id', '=', id)
    .where('lease', '=', lease)
    .where('enabled', '=', true)
    .returningAll()
    .executeTakeFirst()
}

/** How a turn ended. */
export interface TurnEnd {
  /** Before the next one. */
  readonly delayMs: number
  readonly failures: number
  readonly problem: string | null
  /** Nothing will be taken until somebody changes it. */
  readonly isGone: boolean
}

/** Gives a channel back, unless somebody else has taken it. Who has changed it meanwhile wants it tried at once, whatever came of it before. */
export async function releaseChannel(db: Db, { id, lease, revision }: ChannelRow, end: TurnEnd): Promise<void> {
  const { delayMs, failures, problem, isGone } = end
  const { numUpdatedRows } = await db
    .updateTable('channels')
    .set({
      leased_until: null,
      failures,
      problem,
      next_at: sql<Date>`now() + ${delayMs} * interval '1 millisecond'`,
      ...(isGone ? { enabled: false } : {}),
    })
    .where('id', '=', id)
    .where('lease', '=', lease)
    .where('revision', '=', revision)
    .executeTakeFirst()
  if (numUpdatedRows === 0n) await returnChannel(db, { id, lease })
}

/** Gives a channel back as it is, unless somebody else has taken it. */
export async function returnChannel(db: Db, { id, lease }: Pick<ChannelRow, 'id' | 'lease'>): Promise<void> {
  await db.updateTable('channels').set({ leased_until: null }).where('id', '=', id).where('lease', '=', lease).execute()
}
