import { sql } from 'kysely'
import type { Db } from './database.js'

/** Puts this one in the place of the one before. */
export async function setSetUpCode(tx: Db, digest: string): Promise<void> {
  await tx
    .insertInto('set_up_codes')
    .values({ is_only: true, digest })
    .onConflict((conflict) => conflict.column('is_only').doUpdateSet({ digest, created_at: sql<Date>`now()` }))
    .execute()
}

/** By digest. */
export async function isSetUpCode(db: Db, digest: string): Promise<boolean> {
  const row = await db.selectFrom('set_up_codes').select('digest').where('digest', '=', digest).executeTakeFirst()
  return row !== undefined
}

/** Nothing can be set up any more. */
export async function dropSetUpCode(tx: Db): Promise<void> {
  await tx.deleteFrom('set_up_codes').execute()
}
