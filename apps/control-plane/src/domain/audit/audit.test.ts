import { createHash } from 'node:crypto'
import { silentLogger } from '@wrenn/base'
import { AUDIT_GENESIS, type AuditEntry, auditText, type ListAuditQuery } from '@wrenn/protocol'
import { type TestPostgres, testPostgresKinds } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { audited, type NewAuditEntry, writeAudit } from '../../store/audit.js'
import { type Db, migrateUp, openDatabase } from '../../store/database.js'
import { Audit } from './audit.js'
import { AuditChains } from './chain.js'

const DAY_MS = 24 * 3600 * 1000
const actor = { id: 'key-1', name: 'ci', requestId: 'req-1', ip: '192.0.2.1' }

describe.each(testPostgresKinds())('the audit trail on $name', ({ start }) => {
  let postgres: TestPostgres
  let db: Db
  let chains: AuditChains
  let audit: Audit
  let teamId: string
  let teams = 0

  beforeAll(async () => {
    postgres = await start()
    db = openDatabase({ url: postgres.url })
    await migrateUp(db)
    chains = new AuditChains({ db, logger: silentLogger, retentionMs: 30 * DAY_MS })
    audit = new Audit({ db, chains })
  }, 90_000)
  afterAll(async () => {
    await db.destroy()
    await postgres[Symbol.asyncDispose]()
  }, 30_000)
  beforeEach(() => {
    teamId = `team-${++teams}`
  })

  const platformKey = { action: 'api_key.create', actor: undefined, scope: 'admin' } as const
  const entry = (id: string, more: Partial<NewAuditEntry> = {}): NewAuditEntry => ({
    teamId,
    actor,
    action: 'capsule.create',
    resource: { type: 'capsule', id },
    ...more,
  })
  const list = (query: Partial<ListAuditQuery> = {}) => audit.list(teamId, { limit: 50, ...query })
  const placesOf = (entries: readonly AuditEntry[]) => entries.map(({ resource_id, seq }) => [resource_id, seq])

  async function exported(afterSeq = 0): Promise<AuditEntry[]> {
    let text = ''
    for await (const lines of audit.export(teamId, afterSeq)) text += lines
    return text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line))
  }

  function expectUnbroken(entries: readonly AuditEntry[], firstPrevHash: string | undefined = AUDIT_GENESIS): void {
    let previous: string | undefined = firstPrevHash
    for (const each of entries) {
      expect(each.prev_hash).toBe(previous)
      expect(createHash('sha256').update(auditText(each)).digest('hex')).toBe(each.hash)
      previous = each.hash
    }
  }

  it('has an entry exactly when the change is there', async () => {
    await writeAudit(db, entry('kept'))
    const failing = db.transaction().execute(async (tx) => {
      await writeAudit(tx, entry('undone'))
      throw new Error('undo')
    })
    await expect(failing).rejects.toThrow('undo')
    const nothing = async () => undefined
    await audited(db, nothing, () => entry('no change'))
    expect((await list()).items).toMatchObject([
      {
        resource_id: 'kept',
        actor_type: 'key',
        actor_id: 'key-1',
        actor_name: 'ci',
        request_id: 'req-1',
        ip: '192.0.2.1',
        scope: 'team',
        outcome: 'success',
      },
    ])
  })

  it('lets nobody wait for anybody: who commits late gets a late place, without a gap', async () => {
    let commit = (): void => {}
    const open = db.transaction().execute(async (tx) => {
      await writeAudit(tx, entry('slow'))
      await new Promise<void>((resolve) => {
        commit = resolve
      })
    })
    await writeAudit(db, entry('quick'))
    expect(await chains.extend(teamId)).toBe(1)
    await writeAudit(db, entry('later'))
    commit()
    await open
    const entries = await exported()
    expect(placesOf(entries)).toEqual([
      ['quick', 1],
      ['slow', 2],
      ['later', 3],
    ])
    expectUnbroken(entries)
  })

  it('is one chain, however many write and chain at once', async () => {
    const others = new AuditChains({ db, logger: silentLogger, retentionMs: 0 })
    const writes = Array.from({ length: 60 }, (_, n) => writeAudit(db, entry(`cl-${n}`)))
    await Promise.all([...writes, chains.extend(teamId), others.extend(teamId), chains.extend(teamId)])
    const entries = await exported()
    expect(entries.map(({ seq }) => seq)).toEqual(Array.from({ length: 60 }, (_, n) => n + 1))
    expectUnbroken(entries)
    expect(await exported(58)).toEqual(entries.slice(58))
  })

  it('is chained by itself', async () => {
    const own = new AuditChains({ db, logger: silentLogger, retentionMs: 0, lookEveryMs: 10 })
    own.start()
    await writeAudit(db, entry('cl-1'))
    await expect.poll(async () => (await list()).items[0]?.seq).toBe(1)
    await own.stop()
  })

  it('can only be added to', async () => {
    await writeAudit(db, entry('open'))
    await chains.extend(teamId)
    await writeAudit(db, entry('not yet chained'))
    for (const statement of [
      sql`UPDATE audit_log SET outcome = 'failure' WHERE team_id = ${teamId}`,
      sql`UPDATE audit_log SET outcome = 'failure', seq = 9 WHERE team_id = ${teamId} AND seq IS NULL`,
      sql`UPDATE audit_log SET hash = 'x' WHERE team_id = ${teamId} AND seq = 1`,
      sql`DELETE FROM audit_log WHERE team_id = ${teamId}`,
      sql`TRUNCATE audit_log`,
    ]) {
      await expect(statement.execute(db)).rejects.toThrow('can only be added to')
    }
    expectUnbroken(await exported())
  })

  it('forgets what is too old from its beginning, and can be verified from there on', async () => {
    const add = async (id: string, ageDays: number) => {
      await sql`INSERT INTO audit_log (id, team_id, at, actor_type, action, resource_type, resource_id, scope, outcome)
        VALUES (${`log-${teamId}-${id}`}, ${teamId}, ${new Date(Date.now() - ageDays * DAY_MS)}, 'system', 'capsule.exit',
          'capsule', ${id}, 'team', 'failure')`.execute(db)
    }
    await add('oldest', 90)
    await add('old', 60)
    await add('new', 1)
    const before = await exported()
    // One that came late stays as long as those before it.
    await add('late', 80)
    await chains.extend(teamId)
    await chains.prune()
    const left = await exported()
    expect(placesOf(left)).toEqual([
      ['new', 3],
      ['late', 4],
    ])
    expectUnbroken(left, before[1]?.hash)
    await writeAudit(db, entry('next'))
    expectUnbroken(await exported(), before[1]?.hash)
  })

  it('goes on where it was when all of it was forgotten', async () => {
    await sql`INSERT INTO audit_log (id, team_id, at, actor_type, action, resource_type, resource_id, scope, outcome)
      VALUES (${`log-${teamId}`}, ${teamId}, ${new Date(0)}, 'system', 'a', 'capsule', 'cl-1', 'team', 'success')`.execute(
      db,
    )
    const [gone] = await exported()
    await chains.prune()
    expect(await exported()).toEqual([])
    await writeAudit(db, entry('next'))
    const [next] = await exported()
    expect(next).toMatchObject({ seq: 2, prev_hash: gone?.hash })
  })

  it('is listed page after page, newest first, also within one millisecond, and by what is asked for', async () => {
    await db.transaction().execute(async (tx) => {
      for (let n = 0; n < 25; n++) await writeAudit(tx, entry(`cl-${n % 2}`))
      await writeAudit(tx, entry('', { ...platformKey, resource: { type: 'api_key', id: 'key-2' } }))
    })
    const seen = new Set<string>()
    let pages = 0
    for (let cursor: string | undefined; pages === 0 || cursor !== undefined; pages++) {
      const page = await list({ limit: 10, cursor })
      for (const { id } of page.items) seen.add(id)
      cursor = page.next_cursor
    }
    expect([seen.size, pages]).toEqual([26, 3])
    const counts = async (query: Partial<ListAuditQuery>) => (await list(query)).items.length
    expect(await counts({ resource_id: 'cl-1' })).toBe(12)
    expect(await counts({ actor_id: 'key-1' })).toBe(25)
    expect(await counts({ action: ['api_key.create', 'capsule.pause'] })).toBe(1)
    expect(await counts({ outcome: 'failure' })).toBe(0)
    expect(await counts({ until: new Date(0).toISOString() })).toBe(0)
    expect(await counts({ since: new Date(0).toISOString(), resource_type: 'capsule' })).toBe(25)
    await expect(list({ cursor: 'nonsense' })).rejects.toMatchObject({ code: 'invalid_request' })
  })
})
