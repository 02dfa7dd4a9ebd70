import { sql } from 'kysely'
import type { Db } from './database.js'

/** How many there are of one kind. */
export interface Count {
  readonly label: string
  readonly count: number
}

/** Capsules of all teams by state, those that are stopped apart: there may be millions of them. */
export async function countCapsules(db: Db): Promise<readonly Count[]> {
  const { rows } = await sql<Count>`SELECT state AS label, count(*) AS count FROM capsules
    WHERE state <> 'stopped' GROUP BY state`.execute(db)
  return rows
}

/** Operations under way, by kind. */
export async function countOperations(db: Db): Promise<readonly Count[]> {
  const { rows } = await sql<Count>`SELECT kind AS label, count(*) AS count FROM operations
    WHERE state = 'running' GROUP BY kind`.execute(db)
  return rows
}

/** Builds of templates that have not ended, by state. */
export async function countBuilds(db: Db): Promise<readonly Count[]> {
  const { rows } = await sql<Count>`SELECT state AS label, count(*) AS count FROM template_builds
    WHERE ended_at IS NULL GROUP BY state`.execute(db)
  return rows
}
