import { sql } from 'kysely'
import type { Db } from './database.js'
import { insertOperation, type NewOperation } from './operations.js'
import type { OperationRow } from './schema.js'

/** In the order in which they come; each is written before what it names begins. */
export type AtomicStep = 'checkpoint' | 'command' | 'commit' | 'rollback'

const ONE_PER_CAPSULE = 'operations_atomic'

/** Adds an atomic command; `undefined` when its capsule has one already. */
export async function insertAtomic(
  db: Db,
  operation: NewOperation,
  leaseMs: number,
): Promise<OperationRow | undefined> {
  try {
    return await insertOperation(db, operation, leaseMs)
  } catch (error) {
    if (error instanceof Error && 'constraint' in error && error.constraint === ONE_PER_CAPSULE) return undefined
    throw error
  }
}

/** Enters a step; false when another process has taken the operation over since this `attempt`. */
export async function enterStep(db: Db, { id, attempts }: OperationRow, step: AtomicStep): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable('operations')
    .set({ params: sql<string>`params || ${JSON.stringify({ step })}::jsonb`, updated_at: new Date() })
    .where('id', '=', id)
    .where('state', '=', 'running')
    .where('attempts', '=', attempts)
    .executeTakeFirst()
  return numUpdatedRows > 0n
}
