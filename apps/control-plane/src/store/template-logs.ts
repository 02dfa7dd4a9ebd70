import { sql } from 'kysely'
import { type Db, inTransaction } from './database.js'
import type { TemplateBuildLogRow, TemplateBuildRow } from './schema.js'

const ROW_BYTES = 64

/** A line of a build's log before it has its place. */
export type LogLine = Omit<TemplateBuildLogRow, 'build_id' | 'seq'>

/** What a line costs, its row included. */
export function lineBytes({ message }: LogLine): number {
  return Buffer.byteLength(message) + ROW_BYTES
}

/**
 * Adds lines to the log of a build that is still this attempt's, in one step with their numbers, so that a page by number misses none.
 * @returns whether it is
 */
export async function appendBuildLog(
  db: Db,
  { id, attempts }: Pick<TemplateBuildRow, 'id' | 'attempts'>,
  lines: readonly LogLine[],
): Promise<boolean> {
  if (lines.length === 0) return true
  const bytes = lines.reduce((sum, line) => sum + lineBytes(line), 0)
  return await inTransaction(db, async (tx) => {
    const { rows } = await sql<{ count: number }>`UPDATE template_builds
      SET log_count = log_count + ${lines.length}, log_bytes = log_bytes + ${bytes}
      WHERE id = ${id} AND attempts = ${attempts} AND state = 'building' RETURNING log_count AS "count"`.execute(tx)
    const [row] = rows
    if (row === undefined) return false
    const first = row.count - lines.length
    const values = lines.map((line, index) => ({ ...line, build_id: id, seq: first + index }))
    await tx.insertInto('template_build_logs').values(values).execute()
    return true
  })
}

/** Lines from a number on. */
export async function listBuildLog(db: Db, buildId: string, from: number, limit: number) {
  return await db
    .selectFrom('template_build_logs')
    .selectAll()
    .where('build_id', '=', buildId)
    .where('seq', '>=', from)
    .orderBy('seq')
    .limit(limit)
    .execute()
}
