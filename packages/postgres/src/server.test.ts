import { type ChildProcess, spawn } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { AppError, identify, isRunning, waitFor } from '@wrenn/base'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { embeddedDatabaseUrl, startEmbeddedPostgres } from './index.js'

const TEST_UID = 64_900
const isRoot = process.getuid?.() === 0
const user = isRoot ? { uid: TEST_UID } : {}

let scratch = ''
let dir = ''

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'wrenn-postgres-test-'))
  await chmod(scratch, 0o755)
  dir = join(scratch, 'main')
})

afterAll(async () => {
  await rm(scratch, { recursive: true, force: true })
})

async function queryRows(connectionString: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString })
  await client.connect()
  try {
    return (await client.query(sql)).rows
  } finally {
    await client.end()
  }
}

const packageDir = fileURLToPath(new URL('..', import.meta.url))
const programs: ChildProcess[] = []

afterEach(() => {
  for (const child of programs.splice(0)) child.kill('SIGKILL')
})

/** A process that does not ask how its children end, and to which orphans among its descendants come; prctl(2). */
const CARELESS = `
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
print(os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), flush=True)
time.sleep(600)`

interface Started {
  /** Of the process that has started the server. */
  readonly starter: number
  readonly server: number
}

/** Starts a server from a process that can be killed, below one that collects nobody's status. */
async function startElsewhere(work = ''): Promise<Started> {
  const program = `
    import pg from 'pg'
    import { startEmbeddedPostgres } from '@wrenn/postgres'
    const server = await startEmbeddedPostgres(${JSON.stringify({ dir, ...user })})
    ${work}
    process.stdout.write(server.pid + '\\n')
    setInterval(() => {}, 1000)`
  const node = ['--conditions=wrenn-source', '--import', 'tsx', '--input-type=module', '--eval', program]
  const child = spawn('python3', ['-c', CARELESS, process.execPath, ...node], {
    cwd: packageDir,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  programs.push(child)
  const [starter, server] = await take(2, createInterface({ input: child.stdout }))
  return { starter: Number(starter), server: Number(server) }
}

async function take(count: number, lines: AsyncIterable<string>): Promise<string[]> {
  const taken: string[] = []
  for await (const line of lines) if (taken.push(line) === count) break
  return taken
}

describe('startEmbeddedPostgres', () => {
  it('keeps committed rows over a stop and a new start, with fsync on and no TCP port', async () => {
    {
      await using server = await startEmbeddedPostgres({ dir, ...user })
      expect(await server.createDatabase('wrenn')).toBe(true)
      expect(await server.createDatabase('wrenn')).toBe(false)
      const url = embeddedDatabaseUrl(dir, 'wrenn')
      expect(server.connectionString('wrenn')).toBe(url)
      await queryRows(url, 'CREATE TABLE kept (n int)')
      await queryRows(url, 'INSERT INTO kept VALUES (42)')
      expect(await queryRows(url, 'SHOW fsync')).toEqual([{ fsync: 'on' }])
      expect(await queryRows(url, 'SHOW listen_addresses')).toEqual([{ listen_addresses: '' }])
    }
    await using again = await startEmbeddedPostgres({ dir, ...user })
    expect(await queryRows(again.connectionString('wrenn'), 'SELECT n FROM kept')).toEqual([{ n: 42 }])
  })

  it('refuses a second opener with the pid of the first', async () => {
    await using first = await startEmbeddedPostgres({ dir, ...user })
    const second = startEmbeddedPostgres({ dir, ...user })
    await expect(second).rejects.toMatchObject({ code: 'conflict', details: { pid: first.pid } })
    expect(await queryRows(first.connectionString(), 'SELECT 1 AS one')).toEqual([{ one: 1 }])
  })

  it('starts over a pid file whose pid now belongs to someone else', async () => {
    await (await startEmbeddedPostgres({ dir, ...user })).stop()
    await writeFile(join(dir, 'data/postmaster.pid'), `${process.pid}\n${join(dir, 'data')}\n`)
    await using server = await startEmbeddedPostgres({ dir, ...user })
    expect(server.pid).toBeGreaterThan(0)
  })

  it('clears away an initdb that was interrupted, whoever has its number by now', async () => {
    const fresh = join(scratch, 'interrupted')
    for (const name of [`data.init-${process.pid}`, 'data.init'])
      await mkdir(join(fresh, name, 'base'), { recursive: true })
    await using server = await startEmbeddedPostgres({ dir: fresh, ...user })
    expect(server.dataDir).toBe(join(fresh, 'data'))
    expect((await readdir(fresh)).filter((name) => name.includes('init'))).toEqual([])
  })

  it('has one winner when two start at the same moment', async () => {
    const tries = await Promise.allSettled([1, 2].map(() => startEmbeddedPostgres({ dir, ...user })))
    expect(tries.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    const refused = tries.find((one) => one.status === 'rejected')
    expect(refused?.reason).toMatchObject({ code: 'conflict', details: { pid: process.pid } })
    for (const one of tries) if (one.status === 'fulfilled') await one.value.stop()
  })

  it('moves its socket to a short folder when the directory is too long for one', async () => {
    const long = join(scratch, 'l'.repeat(90))
    await using server = await startEmbeddedPostgres({ dir: long, ...user })
    expect(server.socketDir.startsWith(scratch)).toBe(false)
    expect(await queryRows(server.connectionString(), 'SELECT 1 AS one')).toEqual([{ one: 1 }])
    await rm(server.socketDir, { recursive: true, force: true })
  })

  it('is stopped by the kernel when its starter is killed', async () => {
    const { starter, server } = await startElsewhere()
    const id = await identify(server)
    if (id === undefined) throw new Error('It should run.')
    process.kill(starter, 'SIGKILL')
    const isGone = async () => ((await isRunning(id)) ? undefined : true)
    await waitFor(isGone, { timeoutMs: 15_000, what: 'the server to end' })
  })

  it('starts at once after its starter was killed, while the former server is still ending', async () => {
    const { starter, server } = await startElsewhere()
    process.kill(starter, 'SIGKILL')
    await using again = await startEmbeddedPostgres({ dir, ...user })
    expect(again.pid).not.toBe(server)
  })

  it('starts at once after all was killed, though nobody has collected the status of the killed', async () => {
    const { starter, server } = await startElsewhere()
    process.kill(starter, 'SIGKILL')
    process.kill(server, 'SIGKILL')
    await using again = await startEmbeddedPostgres({ dir, ...user })
    expect(process.kill(server, 0)).toBe(true) // it is a zombie: the pid in the killed server's files still exists
    expect(await queryRows(again.connectionString(), 'SELECT 1 AS one')).toEqual([{ one: 1 }])
  })

  it('ends a worker of a killed server that is too busy to notice', async () => {
    const { starter, server } = await startElsewhere(`
      const client = new pg.Client({ connectionString: server.connectionString() })
      client.on('error', () => {})
      await client.connect()
      client.query('SELECT count(*) FROM generate_series(1, 1e12::bigint)').catch(() => {})
      while ((await busy()) === 0);
      async function busy() {
        const other = new pg.Client({ connectionString: server.connectionString() })
        await other.connect()
        const { rowCount } = await other.query("SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT count%' AND state = 'active'")
        await other.end()
        return rowCount
      }`)
    process.kill(server, 'SIGKILL')
    process.kill(starter, 'SIGKILL')
    await using again = await startEmbeddedPostgres({ dir, ...user })
    expect(await queryRows(again.connectionString(), 'SELECT 1 AS one')).toEqual([{ one: 1 }])
  })

  it('is found under a path that leads elsewhere', async () => {
    const link = join(scratch, 'link')
    await symlink(dir, link)
    await using first = await startEmbeddedPostgres({ dir: link, ...user })
    const second = startEmbeddedPostgres({ dir, ...user })
    await expect(second).rejects.toMatchObject({ code: 'conflict', details: { pid: first.pid } })
  })

  it.runIf(isRoot)(
    'lets only its own user and the client group near the socket, and says which folder is closed',
    async () => {
      await using server = await startEmbeddedPostgres({ dir, ...user, clientGid: 64_901 })
      const info = await stat(server.socketDir)
      expect([info.mode & 0o777, info.uid, info.gid]).toEqual([0o710, TEST_UID, 64_901])
      const closed = join(scratch, 'closed')
      await mkdir(closed, { mode: 0o700 })
      const refused = await startEmbeddedPostgres({ dir: join(closed, 'pg'), ...user }).catch((error: unknown) => error)
      expect(AppError.is(refused, 'invalid_config')).toBe(true)
      expect(String(refused)).toContain(closed)
    },
  )
})
