import { AppError, type Logger, silentLogger } from '@wrenn/base'
import { Kysely, type Migration, type MigrationResultSet, Migrator, NO_MIGRATIONS, PostgresDialect, sql } from 'kysely'
import pg from 'pg'
import { migrations } from './migrations/index.js'
import { PreparingPool } from './prepared.js'
import type { Database } from './schema.js'

const BIGINT_OID = 20
const CONNECT_TIMEOUT_MS = 5_000
const STATEMENT_TIMEOUT_MS = 15_000
/** After its limit a server has this long to say so; one that does not is not there any more, though nothing has closed the connection. */
const ANSWER_SPARE_MS = 10_000
/** What control planes call themselves to the database. */
const CONTROL_PLANE = 'wrenn-control-plane'
/** What the one connection of each control plane that hears of changes calls itself. */
export const LISTENER = 'wrenn-control-plane-changes'
/** Any number that nobody else uses in this database: the letters of "wrenn". */
export const MIGRATION_LOCK = 0x7772656e6e

/** A pool or, the same to who uses it, a transaction. */
export type Db = Kysely<Database>

/** Codes of the database, and of the way to it, when its server is away, starting or stopping. */
const AWAY =
  /^(?:08\w{3}|57P0\d|53\d{3}|ECONNREFUSED|ECONNRESET|EHOSTUNREACH|ENETUNREACH|ETIMEDOUT|EAI_AGAIN|ENOENT|EPIPE|57014)$/

/** What a failed query means to our caller. */
export function fromDatabaseError(thrown: unknown): AppError {
  if (!(thrown instanceof Error) || thrown instanceof AppError) return AppError.from(thrown)
  const code = 'code' in thrown ? String(thrown.code) : ''
  if (
    AWAY.test(code) ||
    /timeout exceeded when trying to connect|Connection terminated|Query read timeout/.test(thrown.message)
  ) {
    return new AppError('database_unavailable', 'The database does not answer.', { cause: thrown })
  }
  return AppError.from(thrown)
}

interface OpenDatabaseOptions {
  readonly url: string
  readonly maxConnections?: number
  readonly logger?: Logger
  /** @default 15 000 */
  readonly statementTimeoutMs?: number
  /** How much longer than that an answer is waited for. @default 10 000 */
  readonly answerSpareMs?: number
  /** Who connects, as the server lists it. @default wrenn-control-plane */
  readonly application?: string
}

/** How values come back: counts as numbers. */
export const parsedTypes: pg.CustomTypesConfig = {
  getTypeParser: (oid, format) => (oid === BIGINT_OID ? Number : pg.types.getTypeParser(oid, format)),
}

/** Opens a pool of connections. The caller destroys it; connections that break are replaced and never end the process. */
export function openDatabase({
  url,
  maxConnections = 10,
  logger = silentLogger,
  statementTimeoutMs = STATEMENT_TIMEOUT_MS,
  answerSpareMs = ANSWER_SPARE_MS,
  application = CONTROL_PLANE,
}: OpenDatabaseOptions): Db {
  const pool = new pg.Pool({
    connectionString: url,
    max: maxConnections,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: statementTimeoutMs,
    keepAlive: true,
    application_name: application,
    types: parsedTypes,
  })
  // Without listeners node-postgres ends the process when the server goes away.
  pool.on('error', (error) => logger.warn({ error: error.message }, 'database.connection_lost'))
  pool.on('connect', (client) => client.on('error', () => {}))
  return new Kysely<Database>({
    dialect: new PostgresDialect({ pool: new PreparingPool(pool, logger, statementTimeoutMs + answerSpareMs) }),
  })
}

type Migrations = Readonly<Record<string, Migration>>

function migrator(db: Db, all: Migrations): Migrator {
  const patient = Object.fromEntries(Object.entries(all).map(([name, each]) => [name, patiently(each)]))
  return new Migrator({ db, provider: { getMigrations: async () => patient } })
}

/** A large table takes as long as it takes; the limit of requests comes back with the end of the transaction. */
function patiently({ up, down }: Migration): Migration {
  const wait = (db: Kysely<unknown>) => sql`SET LOCAL statement_timeout = 0`.execute(db)
  return {
    up: async (db) => {
      await wait(db)
      await up(db)
    },
    down: async (db) => {
      await wait(db)
      await down?.(db)
    },
  }
}

function check({ error }: MigrationResultSet): void {
  if (error !== undefined) throw error
}

/** Brings the schema to the newest version; several processes may try at once. */
export async function migrateUp(db: Db, all: Migrations = migrations): Promise<void> {
  await alone(db, async () => check(await migrator(db, all).migrateToLatest()))
}

/** Brings an empty schema to a version of before. */
export async function migrateUpTo(db: Db, name: string): Promise<void> {
  await alone(db, async () => check(await migrator(db, migrations).migrateTo(name)))
}

/** All that this version knows, oldest first. */
export const migrationNames: readonly string[] = Object.keys(migrations)

/** A migration, and when it was applied; `undefined` for one that was not. */
export interface MigrationState {
  readonly name: string
  readonly appliedAt: Date | undefined
}

/** Oldest first. */
export async function listMigrations(db: Db): Promise<MigrationState[]> {
  const known = await migrator(db, migrations).getMigrations()
  return known.map(({ name, executedAt }) => ({ name, appliedAt: executedAt }))
}

/**
 * Reverts every migration after `name`, for an older version of the platform; nobody else may be using the database.
 * @returns the names of those that were reverted, newest first
 * @throws AppError `invalid_request` for a migration that was not applied, `conflict` while others are connected
 */
export async function migrateDownTo(db: Db, name: string): Promise<string[]> {
  const reverted: string[] = []
  await alone(db, async () => {
    const applied = (await listMigrations(db))
      .filter(({ appliedAt }) => appliedAt !== undefined)
      .map((each) => each.name)
    if (!applied.includes(name)) {
      throw new AppError('invalid_request', `This database has no migration ${name}; it has ${applied.join(', ')}.`)
    }
    await requireNoControlPlane(db)
    check(await migrator(db, migrations).migrateTo(name))
    reverted.push(...applied.slice(applied.indexOf(name) + 1).reverse())
  })
  return reverted
}

/** @throws AppError `conflict` while one is connected */
export async function requireNoControlPlane(db: Db): Promise<void> {
  const { rows } = await sql<{ count: number }>`SELECT count(*) AS count FROM pg_stat_activity
    WHERE datname = current_database() AND application_name IN (${CONTROL_PLANE}, ${LISTENER})`.execute(db)
  if ((rows[0]?.count ?? 0) > 0) {
    throw new AppError('conflict', 'A control plane is using the database; stop all of them first.')
  }
}

/** Reverts every migration. */
export async function migrateDown(db: Db): Promise<void> {
  await alone(db, async () => check(await migrator(db, migrations).migrateTo(NO_MIGRATIONS)))
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
      // To that of its pool.
      await sql`RESET statement_timeout`.execute(connection)
    }
  })
}

/** What a database server says of itself, and of who uses the database. */
export interface ServerFacts {
  readonly version: string
  /** Control planes that are connected. */
  readonly replicas: number
}

export async function findServerFacts(db: Db): Promise<ServerFacts> {
  const { rows } = await sql<ServerFacts>`SELECT current_setting('server_version') AS "version",
    (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = ${LISTENER}) AS "replicas"
  `.execute(db)
  const [facts] = rows
  if (facts === undefined) throw new Error('a select without a row')
  return facts
}

/** One statement there and back. @throws the driver's error */
export async function pingDatabase(db: Db): Promise<void> {
  await sql`SELECT 1`.execute(db)
}
