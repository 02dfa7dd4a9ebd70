import { CompiledQuery, type DatabaseConnection, type Dialect, Kysely, PostgresDialect, PostgresDriver } from 'kysely'
import pg from 'pg'
import { type Db, parsedTypes } from './database.js'
import type { Database } from './schema.js'

const CONNECT_TIMEOUT_MS = 5_000

/**
 * One connection without a limit of time, for work that needs its own: COPY, and whole migrations in one transaction. What `db` takes for
 * transactions are savepoints, so the caller's own `BEGIN` must be open when it begins one.
 */
export class OneConnection implements AsyncDisposable {
  readonly client: pg.Client
  readonly db: Db

  private constructor(client: pg.Client) {
    this.client = client
    this.db = new Kysely<Database>({ dialect: savepointDialect(client) })
  }

  /** @param application who connects, as the server lists it */
  static async open(url: string, application: string): Promise<OneConnection> {
    const client = new pg.Client({
      connectionString: url,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      application_name: application,
      types: parsedTypes,
    })
    // Without listeners node-postgres ends the process when the server goes away; the statement that waits fails.
    client.on('error', () => {})
    await client.connect()
    await client.query('SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0')
    return new OneConnection(client)
  }

  /** In a transaction: all of it or nothing. */
  async transaction<T>(task: () => Promise<T>, mode = ''): Promise<T> {
    await this.client.query(`BEGIN ${mode}`)
    try {
      const result = await task()
      await this.client.query('COMMIT')
      return result
    } catch (error) {
      await this.client.query('ROLLBACK').catch(() => {}) // the connection is gone, and with it the transaction
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.end()
  }
}

function savepointDialect(client: pg.Client): Dialect {
  // Kysely knows a connection again by its object.
  const only = {
    query: (text: string, values: readonly unknown[]) => client.query(text, [...values]),
    release: () => {},
  }
  // Its cursors are not used, which is all that this is less than a pool.
  const pool = { connect: async () => only as never, end: async () => {} }
  const dialect = new PostgresDialect({ pool })
  return {
    createDriver: () => new SavepointDriver({ pool }),
    createAdapter: () => dialect.createAdapter(),
    createIntrospector: (db) => dialect.createIntrospector(db),
    createQueryCompiler: () => dialect.createQueryCompiler(),
  }
}

class SavepointDriver extends PostgresDriver {
  #depth = 0

  override async beginTransaction(connection: DatabaseConnection): Promise<void> {
    this.#depth += 1
    await run(connection, `SAVEPOINT wrenn_${this.#depth}`)
  }

  override async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await run(connection, `RELEASE SAVEPOINT wrenn_${this.#depth--}`)
  }

  override async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    await run(connection, `ROLLBACK TO SAVEPOINT wrenn_${this.#depth}`)
    await run(connection, `RELEASE SAVEPOINT wrenn_${this.#depth--}`)
  }
}

async function run(connection: DatabaseConnection, text: string): Promise<void> {
  await connection.executeQuery(CompiledQuery.raw(text))
}
