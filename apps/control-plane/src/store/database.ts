import { type Logger, silentLogger } from '@wrenn/base'
import { Kysely, type MigrationResultSet, Migrator, NO_MIGRATIONS, PostgresDialect, sql } from 'kysely'
import pg from 'pg'
import { migrations } from './migrations/index.js'
import type { Database } from './schema.js'

const BIGINT_OID = 20
const CONNECT_TIMEOUT_MS = 5_000
const STATEMENT_TIMEOUT_MS = 15_000
/** Any number that nobody else uses in this database: the letters of "wrenn". */
const MIGRATION_LOCK = 0x7772656e6e

/** A pool or, the same to who uses it, a transaction. */
export type Db = Kysely<Database>

interface OpenDatabaseOptions {
  readonly url: string
  readonly maxConnections?: number
  readonly logger?: Logger
}

/** Opens a pool of connections. The caller destroys it; connections that break are replaced and never end the process. */
export function openDatabase({ url, maxConnections = 10, logger = silentLogger }: OpenDatabaseOptions): Db {
  const pool = new pg.Pool({
    connectionString: url,
    max: maxConnections,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    application_name: 'wrenn-control-plane',
    types: { getTypeParser: (oid, format) => (oid === BIGINT_OID ? Number : pg.types.getTypeParser(oid, format)) },
  })
  // Without listeners node-postgres ends the process when the server goes away.
  pool.on('error', (error) => logger.warn({ error: error.message }, 'database.connection_lost'))
  pool.on('connect', (client) => client.on('error', () => {}))
  return new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
}

function migrator(db: Db): Migrator {
  return new Migrator({ db, provider: { getMigrations: async () => migrations } })
}

function check({ error }: MigrationResultSet): void {
  if (error !== undefined) throw error
}

/** Brings the schema to the newest version; several processes may try at once. */
export async function migrateUp(db: Db): Promise<void> {
  await alone(db, async () => check(await migrator(db).migrateToLatest()))
}

/** Takes every migration back. */
export async function migrateDown(db: Db): Promise<void> {
  await alone(db, async () => check(await migrator(db).migrateTo(NO_MIGRATIONS)))
}

/** In the transaction that `db` is, or in one of its own. */
export async function inTransaction<T>(db: Db, task: (tx: Db) => Promise<T>): Promise<T> {
  return db.isTransaction ? await task(db) : await db.transaction().execute(task)
}

/**
 * Runs what a start does to the whole database while no other start does. Kysely's own lock does not cover making its tables, where two
 * first starts can collide.
 */
export async function alone(db: Db, task: () => Promise<void>): Promise<void> {
  await db.connection().execute(async (connection) => {
    await sql`SET statement_timeout = 0`.execute(connection)
    await sql`SELECT pg_advisory_lock(${MIGRATION_LOCK})`.execute(connection)
    try {
      await task()
    } finally {
      await sql`SELECT pg_advisory_unlock(${MIGRATION_LOCK})`.execute(connection)
      await sql`SET statement_timeout = ${sql.lit(STATEMENT_TIMEOUT_MS)}`.execute(connection)
    }
  })
}

/** One statement there and back. @throws the driver's error */
export async function pingDatabase(db: Db): Promise<void> {
  await sql`SELECT 1`.execute(db)
}
