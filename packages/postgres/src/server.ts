import { type ChildProcess, spawn } from 'node:child_process'
import { type FileHandle, mkdir, open, readFile, rename, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import {
  AppError,
  errorText,
  hasExited,
  isErrno,
  type Logger,
  type StopStep,
  silentLogger,
  stopChild,
  UndoStack,
  waitFor,
} from '@wrenn/base'
import pg from 'pg'
import { assertReachable, chooseIdentity } from './access.js'
import { installBinaries } from './binaries.js'
import { asIdentity, ensureCluster } from './cluster.js'
import { clearTraces, takeOwnership } from './owner.js'
import { chooseSocketDir, makeSocketDir, SOCKET_PORT } from './socket-dir.js'

/** Recovery after a crash replays the log before the first connection is let in; it took 2.6 s at worst. */
const READY_TIMEOUT_MS = 60_000
const LOG_LIMIT_BYTES = 8 * 1024 * 1024
const LOG_TAIL_BYTES = 2000

/** Fast stop, immediate stop (recovers at the next start), and the last resort. */
const stopLadder: readonly StopStep[] = [
  { signal: 'SIGINT', graceMs: 15_000 },
  { signal: 'SIGQUIT', graceMs: 5_000 },
  { signal: 'SIGKILL', graceMs: 5_000 },
]

/** Where the server lives and who it is. One directory belongs to one server at a time. */
export interface EmbeddedPostgresOptions {
  /** Home of binaries, data, log and socket; made when missing. Its parents must be searchable by `uid`. */
  readonly dir: string
  /** User of the server when the caller is root; otherwise it runs as the caller. */
  readonly uid?: number
  /** @default uid */
  readonly gid?: number
  /** Group whose members may connect, beside root and `uid`; being let in means superuser of the database. @default gid */
  readonly clientGid?: number
  readonly logger?: Logger
  /** Begun anew at a start once it has more than 8 MiB; one older file (`.1`) is kept. @default <dir>/postgres.log */
  readonly logFile?: string
  /** Extra server settings (`max_connections`, …), as for `postgres -c`; they win over our own. */
  readonly settings?: Readonly<Record<string, string | number>>
}

/** How the server process ended; both are null when it never started. */
export interface ServerExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A running server. Disposing stops it. */
export interface EmbeddedPostgres extends AsyncDisposable {
  readonly pid: number
  /** The cluster; only the server's user may enter it. */
  readonly dataDir: string
  /** Folder of the unix socket: what `pg` and libpq take as host. */
  readonly socketDir: string
  /** Only a part of the socket's name: nothing listens on TCP. */
  readonly port: number
  readonly user: 'postgres'
  /** For `DATABASE_URL` and `pg`. @param database @default postgres */
  connectionString(database?: string): string
  /** @returns false when the database exists already. */
  createDatabase(name: string): Promise<boolean>
  /** Resolves when the server process ends, for whatever reason. */
  readonly exited: Promise<ServerExit>
  /** Fast stop: ends connections, keeps every committed transaction. */
  stop(): Promise<void>
}

const defaultSettings: Readonly<Record<string, string | number>> = {
  listen_addresses: '',
  fsync: 'on',
  shared_buffers: '64MB',
  max_connections: 60,
  max_wal_size: '256MB',
  jit: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
}

/**
 * Starts the PostgreSQL that comes from npm, on a unix socket only, as its own user. The kernel stops it when this process
 * dies, so call it from the main thread. Commits are durable (`fsync` on).
 * @throws AppError `conflict` when another server uses `dir`, `invalid_config` when `dir` cannot work, `engine_failure` when
 * the server does not start.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const logger = options.logger ?? silentLogger
  const dir = resolve(options.dir)
  const who = chooseIdentity(options.uid, options.gid)
  await mkdir(dir, { recursive: true, mode: 0o755 })
  await assertReachable(dir, who)
  const startedAt = performance.now()
  await using undo = new UndoStack()
  const ownership = await takeOwnership(dir)
  await undo.defer(() => ownership[Symbol.asyncDispose]())
  const bin = await installBinaries(dir)
  const dataDir = await ensureCluster(dir, bin, who, ownership.lifeline)
  const socketDir = chooseSocketDir(dir)
  await makeSocketDir(socketDir, who, options.clientGid ?? who.gid)
  await clearTraces(dataDir, socketDir)

  const logFile = options.logFile ?? join(dir, 'postgres.log')
  const settings = Object.entries({ ...defaultSettings, ...options.settings }).flatMap(([key, value]) => [
    '-c',
    `${key}=${value}`,
  ])
  const args = ['-D', dataDir, '-k', socketDir, '-p', String(SOCKET_PORT), ...settings]
  const child = await spawnLogged(asIdentity(who, join(bin, 'bin/postgres'), args), logFile, ownership.lifeline)
  const server = new RunningServer(child, dataDir, socketDir, undo.move())
  try {
    await server.waitReady()
  } catch (error) {
    await server.stop()
    throw new AppError(
      'engine_failure',
      `The embedded PostgreSQL did not start: ${errorText(error)} Last lines of ${logFile}: ${await tail(logFile)}`,
      { cause: error },
    )
  }
  logger.info({ pid: server.pid, dir, ms: Math.round(performance.now() - startedAt) }, 'postgres.started')
  return server
}

async function spawnLogged(
  [program, ...args]: readonly [string, ...string[]],
  logFile: string,
  lifeline: FileHandle,
): Promise<ChildProcess> {
  await mkdir(dirname(logFile), { recursive: true })
  await rotate(logFile)
  const log = await open(logFile, 'a', 0o640)
  try {
    // Its own process group: ^C at a terminal reaches us only, and we stop it after everything that uses it.
    return spawn(program, args, {
      cwd: '/',
      env: { PATH: '/usr/bin:/bin' },
      stdio: ['ignore', log.fd, log.fd, lifeline.fd],
      detached: true,
    })
  } finally {
    await log.close()
  }
}

async function rotate(logFile: string): Promise<void> {
  try {
    if ((await stat(logFile)).size > LOG_LIMIT_BYTES) await rename(logFile, `${logFile}.1`)
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
  }
}

async function tail(logFile: string): Promise<string> {
  return (await readFile(logFile, 'utf8')).slice(-LOG_TAIL_BYTES).trim()
}

class RunningServer implements EmbeddedPostgres {
  readonly pid: number
  readonly port = SOCKET_PORT
  readonly user = 'postgres'
  readonly exited: Promise<ServerExit>
  readonly #child: ChildProcess
  #spawnError: Error | undefined

  constructor(
    child: ChildProcess,
    readonly dataDir: string,
    readonly socketDir: string,
    ownership: AsyncDisposable,
  ) {
    this.#child = child
    this.pid = child.pid ?? 0
    const ended = new Promise<ServerExit>((resolve) => {
      child.once('exit', (code, signal) => resolve({ code, signal }))
      child.once('error', (error) => {
        this.#spawnError = error
        if (child.pid === undefined) resolve({ code: null, signal: null })
      })
    })
    this.exited = ended.finally(() => ownership[Symbol.asyncDispose]())
  }

  connectionString(database = 'postgres'): string {
    return urlOf(this.socketDir, database)
  }

  async waitReady(): Promise<void> {
    await waitFor(() => this.#probe(), { timeoutMs: READY_TIMEOUT_MS, what: 'PostgreSQL to accept connections' })
  }

  async #probe(): Promise<true | undefined> {
    if (this.#spawnError) throw this.#spawnError
    if (hasExited(this.#child)) throw new AppError('engine_failure', 'It ended at once.')
    try {
      await this.#query('SELECT 1')
      return true
    } catch (error) {
      // No socket yet, nobody listening yet, or "the database system is starting up".
      if (isErrno(error, 'ENOENT', 'ECONNREFUSED', 'ECONNRESET', '57P03')) return undefined
      throw error
    }
  }

  async createDatabase(name: string): Promise<boolean> {
    try {
      await this.#query(`CREATE DATABASE ${pg.escapeIdentifier(name)}`)
      return true
    } catch (error) {
      if (isErrno(error, '42P04')) return false
      throw error
    }
  }

  async #query(sql: string): Promise<void> {
    const client = new pg.Client({ host: this.socketDir, port: this.port, user: this.user, database: 'postgres' })
    // Without a listener the end of the server would end this process; the query's own rejection says the same.
    client.on('error', () => {})
    try {
      await client.connect()
      await client.query(sql)
    } finally {
      await client.end().catch(() => {})
    }
  }

  async stop(): Promise<void> {
    await stopChild(this.#child, stopLadder)
    if (hasExited(this.#child)) await this.exited
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

/** How to reach a database of the server of `dir`, be it there or not; for who may enter its socket's folder. */
export function embeddedDatabaseUrl(dir: string, database: string): string {
  return urlOf(chooseSocketDir(resolve(dir)), database)
}

function urlOf(socketDir: string, database: string): string {
  return `postgresql://postgres@${encodeURIComponent(socketDir)}:${SOCKET_PORT}/${encodeURIComponent(database)}`
}
