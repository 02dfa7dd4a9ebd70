import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Checkpoint, NewApiKey, PlatformHealth } from '@wrenn/protocol'
import { isReplicated } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { backUpToFile } from './backup/backup.js'
import { openArchive, type RestoreResult, restoreBackup } from './backup/restore.js'
import { verifyChains } from './domain/audit/index.js'
import { Keyring } from './domain/secrets/index.js'
import { type Db, openDatabase } from './store/database.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

const VERSION = '0.0.0-test'
const AN_HOUR_MS = 3_600_000

/** A database of before, beside a host of now. A restore wants all control planes to be down. */
describe.skipIf(isReplicated())('a database that was restored from a backup of before', () => {
  let platform: Platform
  let dir: string
  let db: Db
  let restored: RestoreResult
  const ids: Record<string, string> = {}
  let early: NewApiKey
  let late: NewApiKey
  let checkpointId: string

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'wrenn-test-drill-'))
    platform = await startPlatform({ env: { WRENN_LOST_GRACE_SEC: '0' } })
    const create = async (name: string): Promise<string> => (await platform.create({ name })).id
    for (const name of [
      'stays',
      'destroyed',
      'paused',
      'resumed',
      'prolonged',
      'rolled',
      'pausing',
      'waking',
      'storing',
    ])
      ids[name] = await create(name)
    const call = async (method: string, path: string, body?: unknown): Promise<Response> => {
      const response = await platform.call(method, path, body)
      if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
      return response
    }
    const newKey = async (name: string): Promise<NewApiKey> =>
      await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', { name, scopes: ['capsules'] }), 201)
    await call('POST', `/v1/capsules/${ids.resumed}/pause`)
    early = await newKey('early')
    db = openDatabase({ url: platform.databaseUrl, application: 'test' })
    const path = join(dir, 'then.tar.gz')
    await platform.restart(async () => {
      await makeOpenWork()
      await backUpToFile(path, { url: platform.databaseUrl, version: VERSION })
      const later = { ends_at: new Date(Date.now() + AN_HOUR_MS) }
      await db
        .updateTable('capsules')
        .set(later)
        .where('id', '=', ids.prolonged ?? '')
        .execute()
    })

    // An hour goes by.
    await call('DELETE', `/v1/capsules/${ids.destroyed}`)
    await call('POST', `/v1/capsules/${ids.paused}/pause`)
    await call('POST', `/v1/capsules/${ids.resumed}/resume`)
    ids.made = await create('made')
    await call('POST', `/v1/capsules/${ids.stays}/fork`, { count: 1 })
    ids.forked = [...platform.host.capsules.keys()].find((id) => !Object.values(ids).includes(id)) ?? ''
    const checkpoint = await call('POST', `/v1/capsules/${ids.stays}/checkpoints`, { name: 'since' })
    checkpointId = ((await checkpoint.json()) as Checkpoint).id
    await call('POST', '/v1/snapshots', { capsule_id: ids.stays, name: 'since' })
    await call('DELETE', `/v1/api-keys/${early.id}`)
    late = await newKey('late')

    await platform.restart(async () => {
      await using file = await openArchive(path)
      restored = await restoreBackup(file, {
        ...{ url: platform.databaseUrl, version: VERSION, keyring: new Keyring([]), withoutKeys: false },
        keepAt: join(dir, 'kept.tar.gz'),
      })
    })
  }, 120_000)
  afterAll(async () => {
    await db.destroy()
    await platform[Symbol.asyncDispose]()
    await rm(dir, { recursive: true, force: true })
  })

  /** What was under way at the moment of the backup; nobody's, so that it stays under way. */
  async function makeOpenWork(): Promise<void> {
    const inADay = sql<Date>`now() + interval '1 day'`
    for (const [name, kind] of [
      ['rolled', 'rollback'],
      ['pausing', 'pause'],
      ['waking', 'resume'],
      ['storing', 'hibernate'],
    ] as const) {
      const row = {
        id: `op-${name}`,
        capsule_id: ids[name] ?? '',
        kind,
        request_hash: '',
        generation: 1,
        state: 'running',
        lease_until: inADay,
      } as const
      const team = db.selectFrom('capsules').select('team_id').where('id', '=', row.capsule_id)
      await db
        .insertInto('operations')
        .values({ ...row, team_id: sql<string>`(${team})` })
        .execute()
    }
    await db
      .updateTable('capsules')
      .set({ state: 'pausing' })
      .where('id', '=', ids.pausing ?? '')
      .execute()
    await db
      .updateTable('capsules')
      .set({ state: 'resuming', stored_state: 'state-waking' })
      .where('id', '=', ids.waking ?? '')
      .execute()
    for (const name of ['waking', 'storing']) {
      const capsule_id = ids[name] ?? ''
      const team = db.selectFrom('capsules').select('team_id').where('id', '=', capsule_id)
      const state = { id: `state-${name}`, capsule_id, sealed_by: '', layers: [] }
      await db
        .insertInto('stored_states')
        .values({ ...state, team_id: sql<string>`(${team})` })
        .execute()
    }
    const passed = { ends_at: new Date(Date.now() - 1), lifetime_sec: 60, on_end: 'kill' } as const
    await db
      .updateTable('capsules')
      .set(passed)
      .where('id', '=', ids.prolonged ?? '')
      .execute()
  }

  it('follows the host where both know a capsule', async () => {
    await platform.until(ids.stays ?? '', 'running')
    await platform.until(ids.paused ?? '', 'paused')
    await platform.until(ids.resumed ?? '', 'running')
    await platform.until(ids.pausing ?? '', 'running')
  })

  it('leaves what was in the object store there, and a capsule that was being fetched can be resumed', async () => {
    const { state, host_id } = await platform.get(ids.waking ?? '')
    expect({ state, host_id }).toEqual({ state: 'hibernated', host_id: undefined })
    const stored = await db.selectFrom('stored_states').select('id').execute()
    expect(stored).toEqual([{ id: 'state-waking' }])
    const storing = db.selectFrom('operations').select('state').where('id', '=', 'op-storing')
    expect(await storing.execute()).toEqual([{ state: 'failed' }])
  })

  it('shows what the host no longer has as lost, and keeps its record', async () => {
    const lost = await platform.until(ids.destroyed ?? '', 'error')
    expect(lost.exit).toMatchObject({ cause: 'lost_on_host' })
  })

  it('ends nothing on the host that it does not know, and names it to who runs the platform', async () => {
    await platform.restart()
    await platform.create()
    const health = await json<PlatformHealth>(await platform.call('GET', '/v1/admin/health'), 200)
    expect(health.hosts[0]?.unknown_capsules?.toSorted()).toEqual([ids.made, ids.forked].toSorted())
    const told = health.problems.filter(({ message }) => message.includes('does not know'))
    expect(told).toMatchObject([
      { severity: 'warning', part: 'host', message: expect.stringContaining(ids.made ?? '') },
    ])
    for (const id of [ids.made, ids.forked]) {
      expect(platform.host.capsules.get(id ?? '')?.state).toBe('running')
      expect((await platform.call('GET', `/v1/capsules/${id}`)).status).toBe(404)
    }
    expect(platform.host.capsules.get(ids.stays ?? '')?.checkpoints.has(checkpointId)).toBe(true)
    expect(platform.host.snapshots.size).toBe(1)
  })

  it('destroys on the host what it does not know when it is told to, and nothing else', async () => {
    const gone = async (id: string | undefined): Promise<number> =>
      (await platform.call('DELETE', `/v1/admin/unknown-capsules/${id}`)).status
    expect(await gone(ids.stays)).toBe(409)
    expect(await gone(ids.destroyed)).toBe(404)
    expect(await gone(ids.forked)).toBe(204)
    expect(platform.host.capsules.has(ids.forked ?? '')).toBe(false)
    expect(platform.host.capsules.has(ids.stays ?? '')).toBe(true)
    expect(await gone(ids.forked)).toBe(404)
  })

  it('carries on nothing that was under way then', async () => {
    const { rows } = await sql<{ id: string; code: string }>`SELECT id, error ->> 'code' AS code FROM operations
      WHERE id IN ('op-rolled', 'op-pausing') AND state = 'failed' ORDER BY id`.execute(db)
    expect(rows).toEqual([
      { id: 'op-pausing', code: 'conflict' },
      { id: 'op-rolled', code: 'conflict' },
    ])
    expect(restored).toMatchObject({ operationsEnded: 4, capsulesUnsure: 2, livesExtended: 1 })
  })

  it('destroys nothing whose life was over by what it knows', async () => {
    expect(platform.host.capsules.has(ids.prolonged ?? '')).toBe(true)
    expect((await platform.get(ids.prolonged ?? '')).on_end).toBe('pause')
  })

  it('knows keys that were revoked since, where the replaced database did, and none that were made since', async () => {
    const asks = async (key: string): Promise<number> =>
      (await platform.call('GET', '/v1/capsules', undefined, { 'x-api-key': key })).status
    expect(await asks(early.key)).toBe(401)
    expect(await asks(late.key)).toBe(401)
    expect(restored.keysRevoked).toBe(1)
    expect((await platform.call('GET', '/v1/capsules')).status).toBe(200)
  })

  it('has trails without a break and a ledger in which nothing counts twice or less than nothing', async () => {
    expect(restored.brokenChains).toEqual([])
    await expect
      .poll(async () => (await db.selectFrom('audit_log').select('id').where('seq', 'is', null).execute()).length)
      .toBe(0)
    const { entries, broken } = await verifyChains(db)
    expect(broken).toEqual([])
    expect(entries).toBeGreaterThan(restored.auditEntries)
    const { rows } = await sql<{
      bad: number
    }>`SELECT count(*) AS bad FROM usage_ledger AS a WHERE a.ended_at < a.began_at
      OR EXISTS (SELECT FROM usage_ledger AS b WHERE b.capsule_id = a.capsule_id AND b.id <> a.id
        AND b.began_at < coalesce(a.ended_at, 'infinity') AND coalesce(b.ended_at, 'infinity') > a.began_at)`.execute(
      db,
    )
    expect(rows).toEqual([{ bad: 0 }])
  })
})
