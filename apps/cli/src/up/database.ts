import { join } from 'node:path'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '@wrenn/postgres'
import type { CliConfig } from '../config.js'
import type { Layout } from './layout.js'

/** Uids below `WRENN_UID_BASE + 100`, where the capsules' own begin. */
const POSTGRES_UID_OFFSET = 1
const CONTROL_PLANE_UID_OFFSET = 2

/** As whom the services of a platform run. */
export function serviceUids({ uidBase }: CliConfig): { readonly postgres: number; readonly controlPlane: number } {
  return { postgres: uidBase + POSTGRES_UID_OFFSET, controlPlane: uidBase + CONTROL_PLANE_UID_OFFSET }
}

/** Starts the embedded PostgreSQL of a directory, which the caller has claimed. */
export async function startDatabase(layout: Layout, config: CliConfig): Promise<EmbeddedPostgres> {
  const { postgres, controlPlane } = serviceUids(config)
  return await startEmbeddedPostgres({
    dir: layout.postgresDir,
    uid: postgres,
    clientGid: controlPlane,
    logFile: join(layout.logsDir, 'postgres.log'),
  })
}
