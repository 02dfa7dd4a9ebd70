import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { silentLogger, waitFor } from '@wrenn/base'
import { LagoServer, startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { LagoClient } from '../../lago/index.js'
import { type Db, migrateUp, openDatabase } from '../../store/database.js'
import { findLagoBacklog } from '../../store/lago-events.js'
import { freshDatabase } from '../../testing/harness.js'
import { LagoSender } from './lago-sender.js'

const KEY = 'lago-secret-key'
const CODES = ['wrenn_vcpu_seconds', 'wrenn_memory_gib_seconds', 'wrenn_disk_gib_seconds']
const FROM = '2026-01-01'
const TEAMS = 84
const EVENTS = TEAMS * CODES.length
const packageDir = fileURLToPath(new URL('../../../', import.meta.url))
const patient = { timeoutMs: 40_000, what: 'it to happen' }

describe('a sender of usage in a process that is killed with SIGKILL', () => {
  let postgres: TestPostgres
  let databaseUrl: string
  let db: Db
  let lago: LagoServer
  const children: ChildProcess[] = []

  beforeAll(async () => {
    postgres = await startTestPostgres()
  }, 90_000)
  afterAll(async () => {
    await postgres[Symbol.asyncDispose]()
  }, 30_000)
  beforeEach(async () => {
    databaseUrl = await freshDatabase(postgres.url)
    db = openDatabase({ url: databaseUrl })
    await migrateUp(db)
    lago = await LagoServer.start({ apiKey: KEY, codes: CODES })
    await sql`INSERT INTO usage_rollups SELECT 'team-' || n, 'day', ${FROM}, 'minimal', n, 1024 * n, 0, 2048 * n
      FROM generate_series(1, ${TEAMS}::int) AS n`.execute(db)
    await sql`INSERT INTO usage_changed_days VALUES (${FROM})`.execute(db)
  })
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL')
    await db.destroy()
    await lago[Symbol.asyncDispose]()
  })

  const config = () => ({ url: lago.origin, apiKey: KEY, apiKeyFile: undefined, from: FROM })
  const start = (): ChildProcess => {
    const program = `
      import { silentLogger } from '@wrenn/base'
      import { LagoSender } from './src/domain/usage/index.js'
      import { LagoClient } from './src/lago/index.js'
      import { openDatabase } from './src/store/database.js'
      const config = ${JSON.stringify(config())}
      const db = openDatabase({ url: ${JSON.stringify(databaseUrl)} })
      const client = new LagoClient(config)
      new LagoSender({ db, client, from: config.from, logger: silentLogger, everyMs: 50 }).start()
      setInterval(() => {}, 1000)`
    const node = ['--conditions=wrenn-source', '--import', 'tsx', '--input-type=module', '--eval', program]
    const child = spawn(process.execPath, node, { cwd: packageDir, stdio: ['ignore', 'ignore', 'inherit'] })
    children.push(child)
    return child
  }
  const killed = async (child: ChildProcess): Promise<void> => {
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    expect(await gone).toEqual([null, 'SIGKILL'])
  }
  const send = () => new LagoSender({ db, client: new LagoClient(config()), from: FROM, logger: silentLogger }).send()
  const leaseEnds = () => sql`UPDATE lago_state SET leased_until = now() - interval '1 second'`.execute(db)
  const expectAllOnce = (): void => {
    expect(lago.rules.size).toBe(EVENTS)
    for (let team = 1; team <= TEAMS; team++) {
      const sums = CODES.map((code) => lago.rules.total(`team-${team}`, code))
      expect(sums).toEqual([team, team, 2 * team].map((sum) => BigInt(sum) * 1_000_000n))
    }
  }

  it('has each event counted once, whichever batch it died in', async () => {
    for (const batch of [100, 100, 52]) {
      const child = start()
      await new Promise<void>((resolve, reject) => {
        // Lago has it, and nobody hears that it does.
        lago.onTaken = async () => await killed(child).then(resolve, reject)
      })
      lago.onTaken = () => {}
      expect(lago.calls.at(-1)).toBe(batch)
      // Whoever has died keeps the right to send until its time is over.
      await send()
      expect(lago.calls.at(-1)).toBe(batch)
      await leaseEnds()
    }
    await send()
    // What each of them could not note was sent again, and known.
    expect(lago.calls).toEqual([100, 100, 100, 100, 52, 52])
    expect(await findLagoBacklog(db)).toMatchObject({ waiting: 0, refused: 0, problem: null })
    expectAllOnce()
  })

  it('has each event counted once when it died while it noted what Lago has', async () => {
    const noting = async () => {
      const { rows } = await sql<{ waits: boolean }>`SELECT wait_event_type = 'Lock' AS waits FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'UPDATE lago_events%'`.execute(db)
      return rows
    }
    const isWaiting = async () => ((await noting()).some(({ waits }) => waits) ? true : undefined)
    const child = start()
    const holder = await db.startTransaction().execute()
    try {
      lago.onTaken = async () => void (await sql`SELECT FROM lago_events FOR UPDATE`.execute(holder))
      await waitFor(isWaiting, patient)
      await killed(child)
    } finally {
      await holder.rollback().execute()
    }
    lago.onTaken = () => {}
    // The server reads that nobody is there any more once the statement has ended.
    const isGone = async () => ((await noting()).length === 0 ? true : undefined)
    await waitFor(isGone, patient)
    expect(lago.calls).toEqual([100])
    expect((await findLagoBacklog(db)).waiting).toBe(EVENTS)
    await leaseEnds()
    await send()
    expect(lago.calls).toEqual([100, 100, 100, 52])
    expectAllOnce()
  })
})
