import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { AppError, isErrno, waitFor } from '@wrenn/base'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startEmbeddedPostgres } from './index.js'

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

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    if (isErrno(error, 'ESRCH')) return false
    throw error
  }
}

describe('startEmbeddedPostgres', () => {
  it('keeps committed rows over a stop and a new start, with fsync on and no TCP port', async () => {
    {
      await using server = await startEmbeddedPostgres({ dir, ...user })
      expect(await server.createDatabase('wrenn')).toBe(true)
      expect(await server.createDatabase('wrenn')).toBe(false)
      const url = server.connectionString('wrenn')
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

  it('clears away an initdb that was interrupted', async () => {
    const fresh = join(scratch, 'interrupted')
    const dead = spawn('true')
    await once(dead, 'exit')
    await mkdir(join(fresh, `data.init-${dead.pid}/base`), { recursive: true })
    await using server = await startEmbeddedPostgres({ dir: fresh, ...user })
    expect(server.dataDir).toBe(join(fresh, 'data'))
    expect((await readdir(fresh)).filter((name) => name.includes('init'))).toEqual([])
  })

  it('moves its socket to a short folder when the directory is too long for one', async () => {
    const long = join(scratch, 'l'.repeat(90))
    await using server = await startEmbeddedPostgres({ dir: long, ...user })
    expect(server.socketDir.startsWith(scratch)).toBe(false)
    expect(await queryRows(server.connectionString(), 'SELECT 1 AS one')).toEqual([{ one: 1 }])
    await rm(server.socketDir, { recursive: true, force: true })
  })

  it('is stopped by the kernel when its parent is killed, and then starts again', async () => {
    const program = `
      import { startEmbeddedPostgres } from '@wrenn/postgres'
      const server = await startEmbeddedPostgres(${JSON.stringify({ dir, ...user })})
      process.stdout.write(server.pid + '\\n')
      setInterval(() => {}, 1000)`
    const parent = spawn(
      process.execPath,
      ['--conditions=wrenn-source', '--import', 'tsx', '--input-type=module', '--eval', program],
      { cwd: fileURLToPath(new URL('..', import.meta.url)), stdio: ['ignore', 'pipe', 'inherit'] },
    )
    const [line]: unknown[] = await once(parent.stdout, 'data')
    const pid = Number(String(line))
    expect(isAlive(pid)).toBe(true)
    parent.kill('SIGKILL')
    await waitFor(() => (isAlive(pid) ? undefined : true), { timeoutMs: 15_000, what: 'the server to end' })
    await using again = await startEmbeddedPostgres({ dir, ...user })
    expect(again.pid).not.toBe(pid)
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
