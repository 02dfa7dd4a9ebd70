import { sql } from 'kysely'
import type { Db } from './database.js'

/**
 * Forgets up to `limit` accounts that nobody has activated within `olderThanSec` and that no mail or token can activate any more.
 * @returns their ids
 */
export async function dropPendingAccounts(tx: Db, olderThanSec: number, limit: number): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`DELETE FROM users WHERE id IN (
      SELECT id FROM users AS u
      WHERE u.status = 'pending' AND u.created_at < now() - ${olderThanSec} * interval '1 second'
        AND NOT EXISTS (SELECT FROM email_tokens AS t WHERE t.user_id = u.id AND t.used_at IS NULL AND t.expires_at > now())
      ORDER BY u.created_at LIMIT ${limit} FOR UPDATE SKIP LOCKED
    ) RETURNING id`.execute(tx)
  return rows.map(({ id }) => id)
}
