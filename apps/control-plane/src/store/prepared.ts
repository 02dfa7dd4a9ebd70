import { createHash } from 'node:crypto'
import { AppError, type Logger } from '@wrenn/base'
import type { Compilable, Kysely, PostgresCursor, PostgresPool, PostgresPoolClient, PostgresQueryResult } from 'kysely'
import pg from 'pg'
import type { Database } from './schema.js'

/** At the end of statements that a connection is to keep parsed and planned. */
const MARK = ' /* prepared */'
/** As many different ones a connection keeps; what comes later is parsed each time. */
const MAX_KEPT = 64
const FEATURE_NOT_SUPPORTED = '0A000'
/** Where the server raises it for a statement whose rows have other columns now; its message is in the server's language. */
const REVALIDATION = 'RevalidateCachedQuery'
const UNKNOWN_STATEMENT = '26000'
const STATEMENT_EXISTS = '42P05'
/** What sets the server's own limit to another one than that of the pool. */
const OTHER_LIMIT = /\bstatement_timeout\b/i
/** Says node-postgres of an answer that did not come in time. */
const NO_ANSWER = 'Query read timeout'

/**
 * Runs a query that is asked often. Each connection has it parsed once, and planned once where one plan does for all values: for a short
 * query that is most of its time. In a transaction it is parsed as any other, because there an error of a kept one could not be made good.
 */
export async function runPrepared<Row>(db: Kysely<Database>, query: Compilable<Row>): Promise<Row[]> {
  const compiled = query.compile()
  const { rows } = await db.executeQuery<Row>(db.isTransaction ? compiled : { ...compiled, sql: compiled.sql + MARK })
  return rows
}

/**
 * A pool for Kysely whose connections keep what `runPrepared` asks. An answer that has not come after `answerMs` never will: the statement
 * fails and its connection is given up, but for those that set a limit of their own, until they are given back.
 */
export class PreparingPool implements PostgresPool {
  readonly #pool: pg.Pool
  // Kysely knows a connection again by its object.
  readonly #clients = new WeakMap<pg.PoolClient, PostgresPoolClient>()
  readonly #names: StatementNames
  readonly #answerMs: number

  constructor(pool: pg.Pool, logger: Logger, answerMs: number) {
    this.#pool = pool
    this.#answerMs = answerMs
    this.#names = new StatementNames(logger)
  }

  async connect(): Promise<PostgresPoolClient> {
    const client = await this.#pool.connect()
    const preparing = this.#clients.get(client) ?? new PreparingClient(client, this.#names, this.#answerMs)
    this.#clients.set(client, preparing)
    return preparing
  }

  async end(): Promise<void> {
    await this.#pool.end()
  }
}

class PreparingClient implements PostgresPoolClient {
  readonly #client: pg.PoolClient
  readonly #names: StatementNames
  readonly #answerMs: number
  #isBounded = true
  #isLost = false

  constructor(client: pg.PoolClient, names: StatementNames, answerMs: number) {
    this.#client = client
    this.#names = names
    this.#answerMs = answerMs
  }

  query<Row>(text: string, parameters: readonly unknown[]): Promise<PostgresQueryResult<Row>>
  query<Row>(cursor: PostgresCursor<Row>): PostgresCursor<Row>
  query(what: string | PostgresCursor<unknown>, parameters: readonly unknown[] = []): unknown {
    if (typeof what !== 'string') throw new TypeError('There are no cursors here.')
    return what.endsWith(MARK)
      ? this.#prepared(what, [...parameters])
      : this.#ask({ text: what, values: [...parameters] })
  }

  async #prepared(text: string, values: unknown[]): Promise<pg.QueryResult> {
    const ask = () => this.#ask({ text, values, name: this.#names.nameFor(text) })
    try {
      return await ask()
    } catch (error) {
      if (!this.#names.forgetIfLost(text, error)) throw error
      return await ask()
    }
  }

  async #ask(query: Required<Pick<pg.QueryConfig, 'text' | 'values'>> & { name?: string | undefined }) {
    if (OTHER_LIMIT.test(query.text)) this.#isBounded = false
    if (this.#isLost) throw new AppError('database_unavailable', 'The database does not answer.') // as to the rollback of a transaction
    try {
      return await this.#client.query({ ...query, ...(this.#isBounded && { query_timeout: this.#answerMs }) })
    } catch (error) {
      this.#isLost ||= error instanceof Error && error.message === NO_ANSWER
      throw error
    }
  }

  /** One whose answer is still to come has no other query after it. */
  release(): void {
    this.#isBounded = true
    this.#client.release(this.#isLost)
  }
}

/** Under which names statements are kept, the same on all connections. */
class StatementNames {
  readonly #names = new Map<string, string>()
  readonly #logger: Logger
  /** Of the schema, while this process runs. */
  #changes = 0
  #areKept = true

  constructor(logger: Logger) {
    this.#logger = logger
  }

  nameFor(text: string): string | undefined {
    const known = this.#names.get(text)
    if (!this.#areKept || known !== undefined || this.#names.size >= MAX_KEPT) return known
    // Of the text: behind a pooler that shares connections, another process may have kept one under this name.
    const hash = createHash('sha256').update(text).digest('hex').slice(0, 32)
    const name = `wrenn_${hash}_${this.#changes}`
    this.#names.set(text, name)
    return name
  }

  /** @returns whether a statement failed only because it was kept; from now on it is kept under another name, or nothing is */
  forgetIfLost(text: string, error: unknown): boolean {
    if (!(error instanceof pg.DatabaseError)) return false
    const { code, routine } = error
    // Another control plane has brought the schema to a newer version, and a row has other columns now.
    if (code === FEATURE_NOT_SUPPORTED && routine === REVALIDATION) {
      this.#changes += 1
      this.#names.delete(text)
      return true
    }
    if (code !== UNKNOWN_STATEMENT && code !== STATEMENT_EXISTS) return false
    // A pooler in between gives each statement to any of its connections.
    this.#areKept = false
    this.#logger.warn({ code }, 'database.statements_not_kept')
    this.#names.clear()
    return true
  }
}
