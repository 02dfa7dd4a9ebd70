import { mailIds } from '@wrenn/base'
import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import type { MailRow } from './schema.js'

interface NewMail {
  readonly recipient: string
  readonly kind: string
  readonly data: Readonly<Record<string, string>>
  /** Afterwards sending it makes no sense. */
  readonly expiresAt: Date
}

/** Adds a mail, to be sent once the transaction is committed. */
export async function addMail(tx: Db, { recipient, kind, data, expiresAt }: NewMail): Promise<void> {
  await tx
    .insertInto('mails')
    .values({ id: mailIds.create(), recipient, kind, data: JSON.stringify(data), expires_at: expiresAt })
    .execute()
}

/**
 * Takes mails that are due, for `leaseMs`: whoever has them sends them, and when it dies they are due again. Two never take the same one,
 * and never wait for each other.
 */
export async function takeMails(db: Db, limit: number, leaseMs: number): Promise<MailRow[]> {
  const { rows } = await sql<MailRow>`UPDATE mails SET
      attempts = attempts + 1,
      next_at = now() + ${leaseMs} * interval '1 millisecond'
    WHERE id IN (
      SELECT id FROM mails WHERE given_up_at IS NULL AND next_at <= now() ORDER BY next_at LIMIT ${limit} FOR UPDATE SKIP LOCKED
    )
    RETURNING *`.execute(db)
  return rows
}

/** It was taken by its next hop: nothing of it is kept. */
export async function forgetMail(db: Db, id: string): Promise<void> {
  await db.deleteFrom('mails').where('id', '=', id).execute()
}

/** Tries it again after `delayMs`, unless somebody else has taken it meanwhile. */
export async function postponeMail(db: Db, { id, attempts }: MailRow, delayMs: number, reason: string): Promise<void> {
  await db
    .updateTable('mails')
    .set({ next_at: sql<Date>`now() + ${delayMs} * interval '1 millisecond'`, reason })
    .where('id', '=', id)
    .where('attempts', '=', attempts)
    .where('given_up_at', 'is', null)
    .execute()
}

/** Never tries it again; what it would have said goes, why it was not sent stays. */
export async function giveUpMail(db: Db, { id, attempts }: MailRow, reason: string): Promise<void> {
  await db
    .updateTable('mails')
    .set({ given_up_at: sql<Date>`now()`, data: null, reason })
    .where('id', '=', id)
    .where('attempts', '=', attempts)
    .execute()
}

/** Gives up all whose time is over. */
export async function giveUpExpired(db: Db, reason: string): Promise<void> {
  await db
    .updateTable('mails')
    .set({ given_up_at: sql<Date>`now()`, data: null, reason })
    .where('given_up_at', 'is', null)
    .where('expires_at', '<=', sql<Date>`now()`)
    .execute()
}

/** How the sending of mails goes. */
export interface MailBacklog {
  readonly waiting: number
  readonly oldestAt: Date | null
  /** In the last 24 hours. */
  readonly givenUp: number
}

export async function findMailBacklog(db: Db): Promise<MailBacklog> {
  const { rows } = await sql<MailBacklog>`SELECT
      count(*) FILTER (WHERE given_up_at IS NULL) AS "waiting",
      min(created_at) FILTER (WHERE given_up_at IS NULL) AS "oldestAt",
      count(*) FILTER (WHERE given_up_at > now() - interval '24 hours') AS "givenUp"
    FROM mails`.execute(db)
  const [backlog] = rows
  if (backlog === undefined) throw new Error('an aggregate without a row')
  return backlog
}

/** Forgets mails that were given up longer ago than this. */
export async function pruneMails(db: Db, olderThanMs: number): Promise<void> {
  await db
    .deleteFrom('mails')
    .where(sql<SqlBool>`given_up_at < now() - ${olderThanMs} * interval '1 millisecond'`)
    .execute()
}
