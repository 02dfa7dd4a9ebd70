import { sql } from 'kysely'
import type { Db } from './database.js'
import type { PlanRow } from './schema.js'
import type { TeamQuota } from './usage.js'

/** A plan, and how many teams have it. */
export type CountedPlan = PlanRow & { readonly teams: number }

function counted(db: Db) {
  return db
    .selectFrom('plans as p')
    .selectAll('p')
    .select((eb) =>
      eb
        .selectFrom('teams as t')
        .whereRef('t.plan', '=', 'p.name')
        .where('t.deleted_at', 'is', null)
        .select(sql<number>`count(*)`.as('teams'))
        .$asScalar()
        .$notNull()
        .as('teams'),
    )
}

/** By name. */
export async function listPlans(db: Db): Promise<CountedPlan[]> {
  return await counted(db).orderBy('p.name').execute()
}

/** With how many teams have it. */
export async function findPlan(db: Db, name: string): Promise<CountedPlan | undefined> {
  return await counted(db).where('p.name', '=', name).executeTakeFirst()
}

/** How many there are. */
export async function countPlans(db: Db): Promise<number> {
  const { count } = await db.selectFrom('plans').select(sql<number>`count(*)`.as('count')).executeTakeFirstOrThrow()
  return count
}

/** Makes the plan, or gives it these limits and no others. */
export async function putPlan(tx: Db, name: string, limits: TeamQuota): Promise<void> {
  await tx
    .insertInto('plans')
    .values({ name, ...limits })
    .onConflict((conflict) => conflict.column('name').doUpdateSet(limits))
    .execute()
}

/** Teams that were deleted lose it with its end. */
export async function deletePlan(tx: Db, name: string): Promise<void> {
  await tx
    .updateTable('teams')
    .set({ plan: null })
    .where('plan', '=', name)
    .where('deleted_at', 'is not', null)
    .execute()
  await tx.deleteFrom('plans').where('name', '=', name).execute()
}

/** Until the end of the transaction nobody else makes, changes or deletes a plan; teams may be given one. */
export async function lockPlans(tx: Db): Promise<void> {
  await sql`LOCK TABLE plans IN SHARE ROW EXCLUSIVE MODE`.execute(tx)
}

/** Keeps a plan from going until the end of the transaction; false where there is none. */
export async function holdPlan(tx: Db, name: string): Promise<boolean> {
  const plan = await tx.selectFrom('plans').select('name').where('name', '=', name).forKeyShare().executeTakeFirst()
  return plan !== undefined
}
