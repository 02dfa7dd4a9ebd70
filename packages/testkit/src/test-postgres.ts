import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { chmod, chown, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { stopChild, waitFor } from '@wrenn/base'
import { startEmbeddedPostgres } from '@wrenn/postgres'

const run = promisify(execFile)
/** A folder per major version. */
const DEBIAN_SERVERS = '/usr/lib/postgresql'
const OLDEST_MAJOR = 15
/** `nobody`: PostgreSQL refuses to run as root. */
const UNPRIVILEGED = 65_534
const READY_TIMEOUT_MS = 20_000
/** Control planes of a test file share the one server: up to eight, with a pool of ten and lines of their own each. */
const MAX_CONNECTIONS = 200

export interface TestPostgres extends AsyncDisposable {
  readonly url: string
}

export interface TestPostgresKind {
  readonly name: string
  readonly start: () => Promise<TestPostgres>
}

/** Every PostgreSQL that tests can run against here; Debian's, the oldest that we support, only where one is installed. */
export function testPostgresKinds(): readonly TestPostgresKind[] {
  const embedded = { name: 'embedded PostgreSQL 18', start: startEmbedded }
  const major = oldestDebianMajor()
  if (major === undefined) return [embedded]
  const bin = join(DEBIAN_SERVERS, String(major), 'bin')
  return [{ name: `PostgreSQL ${major}`, start: () => startDebianPostgres(bin) }, embedded]
}

function oldestDebianMajor(): number | undefined {
  if (!existsSync(DEBIAN_SERVERS)) return undefined
  const majors = readdirSync(DEBIAN_SERVERS).map(Number)
  const usable = majors.filter(
    (major) => major >= OLDEST_MAJOR && existsSync(join(DEBIAN_SERVERS, String(major), 'bin/postgres')),
  )
  return usable.length === 0 ? undefined : Math.min(...usable)
}

/** Whether tests run against two control planes behind one address, with `WRENN_TEST_REPLICAS=2`. */
export function isReplicated(): boolean {
  return process.env.WRENN_TEST_REPLICAS === '2'
}

/** The oldest PostgreSQL there is here, whose subset of SQL is what we write; the embedded one with `WRENN_TEST_POSTGRES=embedded`. */
export async function startTestPostgres(): Promise<TestPostgres> {
  if (process.env.WRENN_TEST_POSTGRES === 'embedded') return await startEmbedded()
  const [oldest] = testPostgresKinds()
  return await (oldest?.start ?? startEmbedded)()
}

async function startEmbedded(): Promise<TestPostgres> {
  const dir = await privateDir()
  await chmod(dir, 0o755)
  const server = await startEmbeddedPostgres({ dir, uid: UNPRIVILEGED, settings: { max_connections: MAX_CONNECTIONS } })
  return {
    url: server.connectionString('postgres'),
    [Symbol.asyncDispose]: async () => {
      await server.stop()
      await rm(dir, { recursive: true, force: true })
    },
  }
}

async function startDebianPostgres(bin: string): Promise<TestPostgres> {
  const dir = await privateDir()
  const data = join(dir, 'data')
  await run(...asUnprivileged(`${bin}/initdb`, ['-D', data, '-U', 'postgres', '-A', 'trust', '--no-sync']))
  const [command, args] = asUnprivileged(`${bin}/postgres`, [
    ...['-D', data, '-k', dir],
    ...['listen_addresses=', 'fsync=off', `max_connections=${MAX_CONNECTIONS}`].flatMap((setting) => ['-c', setting]),
  ])
  const child: ChildProcess = spawn(command, args, { stdio: 'ignore' })
  const isReady = () =>
    run(`${bin}/pg_isready`, ['-h', dir]).then(
      () => true,
      () => undefined,
    )
  await waitFor(isReady, { timeoutMs: READY_TIMEOUT_MS, what: 'PostgreSQL to accept connections' })
  return {
    url: `postgres://postgres@/postgres?host=${encodeURIComponent(dir)}`,
    [Symbol.asyncDispose]: async () => {
      await stopChild(child, [
        { signal: 'SIGINT', graceMs: 5_000 },
        { signal: 'SIGKILL', graceMs: 5_000 },
      ])
      await rm(dir, { recursive: true, force: true })
    },
  }
}

async function privateDir(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-test-pg-'))
  if (process.getuid?.() === 0) await chown(dir, UNPRIVILEGED, UNPRIVILEGED)
  return dir
}

function asUnprivileged(command: string, args: readonly string[]): [string, string[]] {
  const wrapped = ['--pdeathsig', 'KILL', command, ...args]
  if (process.getuid?.() !== 0) return ['setpriv', wrapped]
  return ['setpriv', [`--reuid=${UNPRIVILEGED}`, `--regid=${UNPRIVILEGED}`, '--clear-groups', ...wrapped]]
}
