import { capsuleIds, silentLogger } from '@wrenn/base'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { freshDatabase } from '../testing/harness.js'
import { CapsuleChanges } from './capsule-changes.js'
import { findAnyCapsule, insertCapsule, transition } from './capsules.js'
import { type Db, migrateUp, openDatabase } from './database.js'
import { Notifications } from './notifications.js'
import type { CapsuleRow } from './schema.js'
import { createTeam } from './teams.js'

const NEVER_MS = 60 * 60_000
const open = () => new AbortController().signal

let postgres: TestPostgres
let url: string
let db: Db
let capsule: CapsuleRow
let notifications: Notifications
let changes: CapsuleChanges

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(async () => {
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  url = await freshDatabase(postgres.url)
  db = openDatabase({ url })
  await migrateUp(db)
  notifications = new Notifications({ url, logger: silentLogger })
  capsule = await insertCapsule(db, {
    id: capsuleIds.create(),
    team_id: await createTeam(db, 'Team'),
    template: 'minimal',
    vcpus: 1,
    memory_mib: 64,
    disk_size_mib: 64,
    state: 'running',
    desired_state: 'running',
  })
})
afterEach(async () => {
  changes.stop()
  await notifications.stop()
  await db.destroy()
})

/** Listening, as the server sees it. */
async function listening(lookEveryMs = NEVER_MS): Promise<void> {
  changes = new CapsuleChanges({ db, notifications, logger: silentLogger, lookEveryMs })
  notifications.start()
  await expect.poll(() => notifications.isFresh).toBe(true)
}

async function listeners(): Promise<number[]> {
  const { rows } = await sql<{ pid: number }>`SELECT pid FROM pg_stat_activity
    WHERE application_name = 'wrenn-control-plane-changes' AND datname = current_database()`.execute(db)
  return rows.map(({ pid }) => pid)
}

const until = (state: CapsuleRow['state'], signal = open()) =>
  changes.until(capsule.id, (row) => (row?.state === state ? row : undefined), signal)

async function move(command: 'pause' | 'paused'): Promise<void> {
  const row = await findAnyCapsule(db, capsule.id)
  if (row === undefined || (await transition(db, row, command)) === undefined) throw new Error(`no ${command}`)
}

describe('CapsuleChanges', () => {
  it('shows the row at once and when it moved, to all who wait', async () => {
    await listening()
    expect((await until('running')).id).toBe(capsule.id)
    const waiting = [until('paused'), until('paused')]
    await move('pause')
    await move('paused')
    expect((await Promise.all(waiting)).map(({ state }) => state)).toEqual(['paused', 'paused'])
  })

  it('reads a row once for all who wait, and never while nobody does', async () => {
    let reads = 0
    const counted = openDatabase({ url })
    const selectFrom = counted.selectFrom.bind(counted)
    Object.assign(counted, {
      selectFrom: (...args: Parameters<typeof selectFrom>) => {
        reads++
        return selectFrom(...args)
      },
    })
    changes = new CapsuleChanges({ db: counted, notifications, logger: silentLogger, lookEveryMs: NEVER_MS })
    notifications.start()
    await expect.poll(() => notifications.isFresh).toBe(true)
    expect(reads).toBe(0)
    const all = Promise.all(Array.from({ length: 50 }, () => until('pausing')))
    await until('running')
    const before = reads
    await move('pause')
    await all
    expect(reads - before).toBeLessThanOrEqual(2)
    await counted.destroy()
  })

  it('sees what moved while its connection was broken', async () => {
    await listening()
    const waiting = until('paused')
    const [pid = 0] = await listeners()
    await sql`SELECT pg_terminate_backend(${pid})`.execute(db)
    await move('pause')
    await move('paused')
    expect((await waiting).state).toBe('paused')
    await expect.poll(() => notifications.isFresh).toBe(true)
  })

  it('looks from time to time where notifications do not come through', async () => {
    changes = new CapsuleChanges({ db, notifications, logger: silentLogger, lookEveryMs: 20 })
    const waiting = until('pausing')
    await move('pause')
    expect((await waiting).state).toBe('pausing')
  })

  it('ends with its signal, with a stop, and with what the probe throws', async () => {
    await listening()
    const hangUp = new AbortController()
    const aborted = until('paused', hangUp.signal)
    const stopped = until('paused')
    hangUp.abort(new Error('gone'))
    await expect(aborted).rejects.toThrow('gone')
    const thrown = changes.until(
      capsule.id,
      () => {
        throw new Error('enough')
      },
      open(),
    )
    await expect(thrown).rejects.toThrow('enough')
    changes.stop()
    await expect(stopped).rejects.toThrow('stopping')
  })
})
