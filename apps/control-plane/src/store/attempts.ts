import { sql } from 'kysely'
import type { Db } from './database.js'

/** How often something was tried in the time that runs now, and how long that time still is. */
export interface Attempt {
  readonly count: number
  readonly leftMs: number
}

/** Counts one more; the first one begins a time of `windowMs`. Every control plane counts in the same place. */
export async function countAttempt(db: Db, bucket: string, windowMs: number): Promise<Attempt> {
  const { rows } = await sql<Attempt>`INSERT INTO attempts AS a (bucket, count, since, until)
    VALUES (${bucket}, 1, now(), now() + ${windowMs} * interval '1 millisecond')
    ON CONFLICT (bucket) DO UPDATE SET
      count = CASE WHEN a.until <= now() THEN 1 ELSE a.count + 1 END,
      since = CASE WHEN a.until <= now() THEN now() ELSE a.since END,
      until = CASE WHEN a.until <= now() THEN excluded.until ELSE a.until END
    RETURNING count, (extract(epoch FROM until - now()) * 1000)::float8 AS "leftMs"`.execute(db)
  const [row] = rows
  if (row === undefined) throw new Error('an upsert gave no row')
  return row
}

/** It was none. */
export async function uncountAttempt(db: Db, bucket: string): Promise<void> {
  await db
    .updateTable('attempts')
    .set((eb) => ({ count: eb('count', '-', 1) }))
    .where('bucket', '=', bucket)
    .where('count', '>', 0)
    .execute()
}

/** Forgets what was tried. */
export async function forgetAttempts(db: Db, bucket: string): Promise<void> {
  await db.deleteFrom('attempts').where('bucket', '=', bucket).execute()
}

/** Forgets times that are over. */
export async function pruneAttempts(db: Db): Promise<void> {
  await db.deleteFrom('attempts').where('until', '<', sql<Date>`now()`).execute()
}
