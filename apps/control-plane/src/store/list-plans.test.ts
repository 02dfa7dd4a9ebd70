import { type TestPostgres, testPostgresKinds } from '@wrenn/testkit'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { eraseAccount } from './account-ends.js'
import { listAllTeams } from './all-teams.js'
import { listKeys } from './api-keys.js'
import { listAudit, listChained } from './audit.js'
import { findCapsule, listCapsules, liveStates, pruneEnded, pruneOperations } from './capsules.js'
import { type Db, migrateUp, openDatabase } from './database.js'
import { listEvents } from './events.js'
import { countBuilds, countCapsules, countOperations } from './monitoring.js'
import { dropPendingAccounts } from './pending-accounts.js'
import type { Database } from './schema.js'
import { findSnapshots } from './snapshots.js'
import { findUsage } from './usage.js'
import { findUser, listUsers } from './users.js'

/** Fewer than the 30,000 that ANALYZE looks at: what it finds, and so the plan, is the same each time. */
const MANY = 20_000
const PAGE = 51
/** A page, and what a page may pass by: nothing that grows with the number of rows. */
const MAX_ROWS_READ = 4 * PAGE
const TEAM = 'team-many'
const DAY_MS = 86_400_000

const filling = `
  SET session_replication_role = 'replica';
  INSERT INTO teams (id, name, slug, created_at) SELECT 'team-' || n, 'Team', 'team-' || n, now() - n * interval '1 s' FROM n;
  INSERT INTO users (id, email, name, status, created_at)
    SELECT 'user-' || n, n || '@example.com', 'Somebody', 'active', now() - n * interval '1 s' FROM n;
  INSERT INTO capsules
      (id, team_id, name, template, vcpus, memory_mib, disk_size_mib, labels, state, observed_state, desired_state, created_at, started_at)
    SELECT 'cl-' || n, '${TEAM}', 'many-' || n, 'minimal', 1, 512, 1024, '{"kind": "many"}',
      CASE WHEN n <= 40 THEN 'running' ELSE 'stopped' END, 'absent', 'stopped', now() - n * interval '1 s', now() FROM n;
  UPDATE capsules SET name = 'kept', template = 'own', labels = '{"kind": "kept"}', started_at = now() + interval '1 day' WHERE id = 'cl-9000';
  UPDATE capsules SET state = 'error' WHERE id = 'cl-9001';
  INSERT INTO operations (id, team_id, capsule_id, kind, request_hash, state, generation, lease_until, actor)
    SELECT 'op-' || n, '${TEAM}', 'cl-' || n, 'create', '', 'succeeded', 1, now(),
      jsonb_build_object('kind', 'user', 'id', 'user-' || n, 'name', 'Somebody') FROM n;
  INSERT INTO template_builds (id, team_id, name, state, ended_at, actor)
    SELECT 'build-' || n, '${TEAM}', 'template-' || n, 'cancelled', now(), jsonb_build_object('id', 'user-' || n) FROM n;
  INSERT INTO audit_log (id, team_id, at, actor_type, actor_id, action, resource_type, resource_id, scope, outcome, seq)
    SELECT 'audit-' || n, '${TEAM}', now() - n * interval '1 s', 'key', 'key-1', 'capsule.create', 'capsule', 'cl-1', 'team', 'success', n
    FROM n WHERE n <> 9000;
  INSERT INTO audit_log (id, team_id, at, actor_type, actor_id, action, resource_type, resource_id, scope, outcome, seq)
    VALUES ('audit-9000', '${TEAM}', now() - interval '9000 s', 'user', 'user-1', 'api_key.create', 'api_key', 'key-2', 'admin', 'failure', 9000);
  INSERT INTO snapshots (id, team_id, name, capsule_id, template, vcpus, memory_mib, disk_size_mib, state)
    SELECT 'snap-' || n, '${TEAM}', 'snapshot-' || n, 'cl-' || n / 10, 'minimal', 1, 512, 1024, 'ready' FROM n;
  INSERT INTO api_keys (id, team_id, name, prefix, key_hash, scopes, created_by, created_at)
    SELECT 'key-' || n, '${TEAM}', 'A key', '', n, '{read}', 'user-' || n, now() - n * interval '1 s' FROM n;
  INSERT INTO invitations (id, team_id, email, role, token_digest, invited_by, inviter_name, expires_at)
    SELECT 'inv-' || n, '${TEAM}', n || '@example.com', 'member', n, 'user-' || n, 'Somebody', now() FROM n;
  INSERT INTO events (team_id, xid, type, resource_id, data) SELECT '${TEAM}', n::text::xid8, 'capsule.state', 'cl-1', '{}' FROM n;
  SET session_replication_role = 'origin';
  ANALYZE`

const hour = (hours: number): Date => new Date(Date.now() + hours * 3_600_000)
const capsules = (filter: object) => (db: Db) => listCapsules(db, TEAM, { limit: PAGE, ...filter })
const entries = (filter: object) => (db: Db) => listAudit(db, TEAM, { limit: PAGE, ...filter })
const snapshots = (filter: object) => (db: Db) => findSnapshots(db, TEAM, { limit: PAGE, ...filter })

/** What is asked, and of how many rows there is an answer. */
const questions: Readonly<Record<string, (db: Db) => Promise<unknown>>> = {
  'all capsules': capsules({}),
  'a page of all capsules': capsules({ beyondSeq: 10_000 }),
  'capsules that have not ended': capsules({ states: liveStates }),
  'capsules that failed': capsules({ states: ['error'] }),
  'ended capsules': capsules({ states: ['stopped'] }),
  'a page of ended capsules': capsules({ states: ['stopped', 'error'], beyondSeq: 10_000 }),
  'capsules of a name': capsules({ name: 'kept' }),
  'capsules of a rare template': capsules({ templates: ['own', 'other'] }),
  'capsules of a common template': capsules({ templates: ['minimal'], beyondSeq: 10_000 }),
  'capsules with a rare label': capsules({ labels: { kind: 'kept' } }),
  'capsules with a common label': capsules({ labels: { kind: 'many' }, beyondSeq: 10_000 }),
  'capsules that started lately': capsules({ startedAfter: hour(1), order: 'asc' }),
  'capsules of a name and template': capsules({ name: 'kept', templates: ['minimal'], states: ['stopped'] }),
  'one capsule': (db) => findCapsule(db, TEAM, 'cl-9000'),
  'what a team uses': (db) => findUsage(db, TEAM),
  'the audit trail': entries({}),
  'a page of the audit trail': entries({ before: { at: hour(-1), id: 'audit-3600' } }),
  'entries of a rare actor': entries({ actorId: 'user-1' }),
  'entries of a common actor': entries({ actorId: 'key-1', before: { at: hour(-1), id: 'audit-3600' } }),
  'entries of rare actions': entries({ actions: ['api_key.create', 'api_key.revoke'] }),
  'entries of a rare and a common action': entries({ actions: ['api_key.create', 'capsule.create'] }),
  'entries of a rare type': entries({ resourceType: 'api_key' }),
  'entries of a common type': entries({ resourceType: 'capsule', before: { at: hour(-1), id: 'audit-3600' } }),
  'entries of one resource': entries({ resourceId: 'key-2' }),
  'entries of a rare outcome': entries({ outcome: 'failure' }),
  'entries of a common outcome': entries({ outcome: 'success', before: { at: hour(-1), id: 'audit-3600' } }),
  'entries between two times': entries({ since: hour(-3), until: hour(-2) }),
  'entries in the order of their chain': (db) => listChained(db, TEAM, 10_000, PAGE),
  snapshots: snapshots({ beforeSeq: 10_000 }),
  'snapshots of a capsule': snapshots({ capsuleId: 'cl-900' }),
  'snapshots of a name': snapshots({ name: 'snapshot-9000' }),
  'keys of a team': (db) => listKeys(db, TEAM, { limit: PAGE }),
  'a page of keys': (db) => listKeys(db, TEAM, { limit: PAGE, afterId: 'key-9000' }),
  'a page of accounts': (db) => listUsers(db, PAGE, 'user-9000'),
  'a page of teams': (db) => listAllTeams(db, PAGE, 'team-9000'),
  'a page of events': (db) => listEvents(db, TEAM, { xid: '9000', id: 0 }, PAGE),
  'capsules of all teams by state': countCapsules,
  'operations under way': countOperations,
  'builds that have not ended': countBuilds,
  'capsules that ended long ago': (db) => pruneEnded(db, 30 * DAY_MS, PAGE),
  'operations that ended long ago': (db) => pruneOperations(db, 30 * DAY_MS, PAGE),
  'accounts that nobody activates': (db) => dropPendingAccounts(db, 14 * 86_400, PAGE),
  'what an account leaves behind': async (db) => {
    const user = await findUser(db, 'user-9000')
    if (user !== undefined) await eraseAccount(db, user)
  },
}

/** Those whose statements are kept, which may have one plan for all values. */
const kept = ['all capsules', 'a page of all capsules', 'capsules that have not ended', 'one capsule']

interface Plan {
  readonly 'Node Type': string
  readonly 'Actual Rows': number
  readonly 'Actual Loops': number
  readonly 'Rows Removed by Filter'?: number
  readonly 'Rows Removed by Index Recheck'?: number
  readonly Plans?: readonly Plan[]
}

/** How many rows its scans have looked at. */
function rowsRead(plan: Plan): number {
  const below = (plan.Plans ?? []).reduce((sum, each) => sum + rowsRead(each), 0)
  if (!plan['Node Type'].includes('Scan')) return below
  const passed = (plan['Rows Removed by Filter'] ?? 0) + (plan['Rows Removed by Index Recheck'] ?? 0)
  return below + (plan['Actual Rows'] + passed) * plan['Actual Loops']
}

describe.each(testPostgresKinds())('on $name', ({ start }) => {
  let postgres: TestPostgres
  let pool: pg.Pool
  let db: Db
  let asked: { readonly sql: string; readonly parameters: readonly unknown[] }[] = []

  beforeAll(async () => {
    postgres = await start()
    const schema = openDatabase({ url: postgres.url })
    await migrateUp(schema)
    await schema.destroy()
    pool = new pg.Pool({ connectionString: postgres.url, max: 2 })
    await pool.query(filling.replaceAll('FROM n', `FROM generate_series(1, ${MANY}) AS n`))
    db = new Kysely<Database>({
      dialect: new PostgresDialect({ pool }),
      log: ({ query: { sql, parameters } }) => void asked.push({ sql, parameters }),
    })
  }, 120_000)
  afterAll(async () => {
    await db.destroy()
    await postgres[Symbol.asyncDispose]()
  }, 30_000)

  async function askedBy(question: (db: Db) => Promise<unknown>): Promise<typeof asked> {
    asked = []
    const back = new Error('nothing is to stay')
    const undone = db.transaction().execute(async (tx) => {
      await question(tx)
      throw back
    })
    await expect(undone).rejects.toBe(back)
    return asked.filter(({ sql }) => /^\s*(select|with|update|delete)\b/i.test(sql))
  }

  /** Of each statement that `question` asks, how many rows it reads; nothing is changed by it. */
  async function readBy(question: (db: Db) => Promise<unknown>): Promise<{ rows: number; sql: string }[]> {
    const statements = await askedBy(question)
    const client = await pool.connect()
    try {
      await client.query('BEGIN')
      const read: { rows: number; sql: string }[] = []
      for (const { sql, parameters } of statements) {
        const { rows } = await client.query(`EXPLAIN (ANALYZE, FORMAT JSON) ${sql}`, [...parameters])
        read.push({ rows: rowsRead(rows[0]['QUERY PLAN'][0].Plan), sql })
      }
      return read
    } finally {
      await client.query('ROLLBACK')
      client.release()
    }
  }

  it('sees it when many rows are read', async () => {
    const all = await readBy((tx) => tx.selectFrom('capsules').select('id').where('vcpus', '=', 2).execute())
    expect(all).toEqual([{ rows: MANY, sql: expect.stringContaining('"vcpus"') }])
  })

  it.each(kept)('reads little with one plan for all values: %s', async (name) => {
    const [asked] = await askedBy(questions[name] as (db: Db) => Promise<unknown>)
    const client = await pool.connect()
    try {
      await client.query('SET plan_cache_mode = force_generic_plan')
      await client.query(`PREPARE asked AS ${asked?.sql}`)
      const values = asked?.parameters.map((each) => pg.escapeLiteral(String(each))).join(', ')
      const { rows } = await client.query(`EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked(${values})`)
      expect(JSON.stringify(rows)).toContain('$1')
      expect(rowsRead(rows[0]['QUERY PLAN'][0].Plan)).toBeLessThanOrEqual(MAX_ROWS_READ)
    } finally {
      // It is not to be used again: a connection keeps its settings and statements.
      client.release(true)
    }
  })

  it.each(Object.keys(questions))('reads little more than its page: %s', async (name) => {
    const read = await readBy(questions[name] as (db: Db) => Promise<unknown>)
    expect(read.length).toBeGreaterThan(0)
    expect(read.filter(({ rows }) => rows > MAX_ROWS_READ)).toEqual([])
  })
})
