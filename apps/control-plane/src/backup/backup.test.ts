import { randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Writable } from 'node:stream'
import { capsuleIds, silentLogger } from '@wrenn/base'
import { type TestPostgres, testPostgresKinds } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { AuditChains } from '../domain/audit/index.js'
import { Keyring } from '../domain/secrets/index.js'
import { writeAudit } from '../store/audit.js'
import { findCapsules, insertCapsule, patchCapsule } from '../store/capsules.js'
import { type Db, migrateUp, migrateUpTo, migrationNames, openDatabase } from '../store/database.js'
import { beginStored, finishStored, listUnwantedStates } from '../store/stored-states.js'
import { createTeam } from '../store/teams.js'
import { freshDatabase } from '../testing/harness.js'
import { readArchive } from './archive-reader.js'
import { ArchiveWriter } from './archive-writer.js'
import { type BackupResult, backUp, backUpToFile } from './backup.js'
import { checkArchive } from './check.js'
import { HEADER_FILE, MANIFEST_FILE, manifestSchema, PART_BYTES } from './format.js'
import { openArchive, type RestoreResult, restoreBackup } from './restore.js'

/** What a careless writer of rows would lose. */
const NASTY = ['\\N', 'a\tb\nc\r\nd\\', '\\.', 'Ωß漢🙂 "quoted" \'single\'', '{"not":"json"}', '\u0001\u007f', '']
const VERSION = '0.0.0-test'
const KEY = Buffer.alloc(32, 7)

const kinds = testPostgresKinds()
const servers = new Map<string, TestPostgres>()
let dir: string
const open_: Db[] = []

beforeAll(async () => {
  for (const { name, start } of kinds) servers.set(name, await start())
}, 120_000)
afterAll(async () => {
  for (const server of servers.values()) await server[Symbol.asyncDispose]()
}, 60_000)
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-backup-'))
})
afterEach(async () => {
  for (const db of open_.splice(0)) await db.destroy()
  await rm(dir, { recursive: true, force: true })
})

/** An empty database on the server of a kind, or of the first one. */
async function emptyDatabase(kind = kinds[0]?.name ?? ''): Promise<{ url: string; db: Db }> {
  const url = await freshDatabase(servers.get(kind)?.url ?? '')
  const db = openDatabase({ url, application: 'test' })
  open_.push(db)
  return { url, db }
}

/** One of this version, with something in it. */
async function filledDatabase(kind?: string): Promise<{ url: string; db: Db; teamId: string }> {
  const { url, db } = await emptyDatabase(kind)
  await migrateUp(db)
  const teamId = await createTeam(db, 'A team')
  for (const [at, text] of NASTY.entries()) {
    await addCapsule(db, teamId, {
      name: text.slice(0, 60),
      labels: JSON.stringify({ text: text.replaceAll('\u0000', ''), at }),
    })
    await writeAudit(db, {
      ...{ teamId, actor: undefined, action: 'capsule.create', resource: { type: 'capsule', id: `cl-${at}` } },
      details: { text },
    })
  }
  const points = [randomBytes(3_000), Buffer.from([0, 9, 10, 13, 92, 255]), Buffer.alloc(0)]
  for (const [at, bytes] of points.entries()) {
    await db
      .insertInto('capsule_metrics')
      .values({ capsule_seq: at + 1, tier: 0, at, points: bytes })
      .execute()
  }
  await new AuditChains({ db, logger: silentLogger, retentionMs: 0 }).extend(teamId)
  return { url, db, teamId }
}

async function addCapsule(db: Db, teamId: string, more: object = {}): Promise<string> {
  const base = { team_id: teamId, template: 'minimal', vcpus: 1, memory_mib: 512, disk_size_mib: 1024, labels: '{}' }
  const row = {
    ...base,
    id: capsuleIds.create(),
    envs: '{}',
    state: 'running',
    desired_state: 'running',
    ...more,
  } as const
  return (await insertCapsule(db, row)).id
}

async function restore(
  path: string,
  url: string,
  more: { keyring?: Keyring; withoutKeys?: boolean; keepAt?: string } = {},
): Promise<RestoreResult> {
  await using file = await openArchive(path)
  const { keyring = new Keyring([]), withoutKeys = false, keepAt } = more
  return await restoreBackup(file, { url, version: VERSION, keyring, withoutKeys, keepAt })
}

/** Digests of what tables have, whatever the order of their rows. */
async function contentOf(db: Db): Promise<Record<string, string>> {
  const tables = await sql<{ name: string }>`SELECT relname AS name FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'kysely_migration_lock' ORDER BY 1`.execute(
    db,
  )
  const digests: Record<string, string> = {}
  for (const { name } of tables.rows) {
    const { rows } = await sql<{
      digest: string
    }>`SELECT coalesce(md5(string_agg(each::text, E'\n' ORDER BY each::text)), '')
      || ' ' || count(*) AS digest FROM ${sql.table(name)} AS each`.execute(db)
    digests[name] = rows[0]?.digest ?? ''
  }
  return digests
}

/** What a restore itself changes. */
const without = ({ events: _, audit_log: __, ...rest }: Record<string, string>) => rest

/** The archive at `path` once more, with files changed or, by `undefined`, left out. */
async function rewrite(path: string, edit: (name: string, content: Buffer) => Buffer | undefined): Promise<string> {
  const to = join(dir, `${randomBytes(4).toString('hex')}.tar.gz`)
  const archive = new ArchiveWriter([new PassThrough(), createWriteStream(to)], new Date())
  await using file = await open(path, 'r')
  for await (const { name, content } of readArchive(file, () => {})) {
    const changed = edit(name, content)
    if (changed !== undefined) await archive.add(name, changed)
  }
  await archive.finish()
  return to
}

function editJson(content: Buffer, edit: (value: Record<string, unknown>) => object): Buffer {
  return Buffer.from(JSON.stringify(edit(JSON.parse(content.toString()) as Record<string, unknown>)))
}

const pairs = kinds.flatMap((from) => kinds.map((to) => ({ from: from.name, to: to.name })))

describe('a backup', () => {
  it.each(pairs)(
    'of $from, restored on $to, has every row as it was, and columns count on',
    async ({ from, to }) => {
      const source = await filledDatabase(from)
      const path = join(dir, 'one.tar.gz')
      const { manifest, bytes } = await backUpToFile(path, { url: source.url, version: VERSION })
      expect(await stat(path)).toMatchObject({ size: bytes, mode: 0o100_600 })
      expect(manifest.tables.find(({ name }) => name === 'capsules')?.rows).toBe(NASTY.length)

      const target = await emptyDatabase(to)
      const result = await restore(path, target.url)
      expect(result).toMatchObject({ auditEntries: NASTY.length, brokenChains: [], keptAt: undefined })
      expect(without(await contentOf(target.db))).toEqual(without(await contentOf(source.db)))
      // The trail goes on, and so do numbers.
      await addCapsule(target.db, source.teamId)
      const { rows } = await sql<{ seq: number }>`SELECT seq FROM capsules ORDER BY seq`.execute(target.db)
      expect(new Set(rows.map(({ seq }) => seq)).size).toBe(NASTY.length + 1)
      const { rows: entries } = await sql<{ action: string }>`SELECT action FROM audit_log WHERE seq IS NULL`.execute(
        target.db,
      )
      expect(entries).toEqual([{ action: 'platform.restore' }])
    },
    180_000,
  )

  it('shows one moment, whatever is written meanwhile', async () => {
    const { url, db, teamId } = await filledDatabase()
    let added = 0
    // Rows are added from when the first bytes come out of the database until the last.
    const archive = new Writable({
      write: (_chunk, _encoding, done) => {
        added += 1
        addCapsule(db, teamId).then(() => done(), done)
      },
    })
    await sql`INSERT INTO audit_log (id, team_id, actor_type, action, resource_type, resource_id, scope, outcome, details)
      SELECT 'log-' || n, ${teamId}, 'system', 'x', 'capsule', 'x', 'team', 'success', jsonb_build_object('t', repeat(md5(n::text), 20))
      FROM generate_series(1, 20000) AS n`.execute(db)
    const { manifest } = await backUp(archive, { url, version: VERSION })
    expect(added).toBeGreaterThan(1)
    expect(manifest.tables.find(({ name }) => name === 'capsules')?.rows).toBe(NASTY.length)
    expect(manifest.tables.find(({ name }) => name === 'audit_log')?.bytes).toBeGreaterThan(PART_BYTES)
  })

  it('replaces no file, and leaves none behind that is not whole', async () => {
    const { url } = await filledDatabase()
    const path = join(dir, 'one.tar.gz')
    await writeFile(path, 'mine')
    await expect(backUpToFile(path, { url, version: VERSION })).rejects.toMatchObject({ code: 'conflict' })
    expect(await readFile(path, 'utf8')).toBe('mine')
    const empty = await emptyDatabase()
    const second = join(dir, 'two.tar.gz')
    await expect(backUpToFile(second, { url: empty.url, version: VERSION })).rejects.toMatchObject({
      code: 'not_found',
    })
    expect(await readdir(dir)).toEqual(['one.tar.gz'])
  })

  it('fails when its reader goes away', async () => {
    const { url, db, teamId } = await filledDatabase()
    await sql`INSERT INTO audit_log (id, team_id, actor_type, action, resource_type, resource_id, scope, outcome, details)
      SELECT 'log-' || n, ${teamId}, 'system', 'x', 'capsule', 'x', 'team', 'success', jsonb_build_object('t', repeat(md5(n::text), 20))
      FROM generate_series(1, 20000) AS n`.execute(db)
    const gone = new Writable({ write: (_chunk, _encoding, done) => done(new Error('nobody reads')) })
    await expect(backUp(gone, { url, version: VERSION })).rejects.toThrow('nobody reads')
    // And holds nothing back.
    await sql`ALTER TABLE audit_log ADD COLUMN other int`.execute(db)
  })
})

describe('an archive', () => {
  let path: string
  let result: BackupResult
  beforeEach(async () => {
    const { url } = await filledDatabase()
    path = join(dir, 'one.tar.gz')
    result = await backUpToFile(path, { url, version: VERSION })
  })

  const check = async (at: string) => {
    await using file = await openArchive(at)
    return await checkArchive(file)
  }

  it('is checked as a whole', async () => {
    expect(await check(path)).toEqual(result.manifest)
    const changed = async (edit: Parameters<typeof rewrite>[1]) => await check(await rewrite(path, edit))
    const refused = { code: 'invalid_request' }
    await expect(changed((name, content) => (name === MANIFEST_FILE ? undefined : content))).rejects.toMatchObject(
      refused,
    )
    await expect(changed((name, content) => (name === HEADER_FILE ? undefined : content))).rejects.toMatchObject(
      refused,
    )
    await expect(changed((name, content) => (name.includes('capsules') ? undefined : content))).rejects.toMatchObject(
      refused,
    )
    await expect(
      changed((name, content) =>
        name.includes('audit_log') ? Buffer.from(content.toString().replace('capsule', 'capsulf')) : content,
      ),
    ).rejects.toMatchObject(refused)
    await writeFile(join(dir, 'text'), 'no archive')
    await expect(check(join(dir, 'text'))).rejects.toMatchObject(refused)
    await expect(check(join(dir, 'none'))).rejects.toMatchObject({ code: 'file_not_found' })
  })

  it('that was cut off or has a wrong byte anywhere is refused, and the database not touched', async () => {
    const whole = await readFile(path)
    const target = await filledDatabase()
    const before = await contentOf(target.db)
    const bad = join(dir, 'bad.tar.gz')
    for (let at = 1; at < 16; at++) {
      const place = Math.floor((whole.length * at) / 16)
      const flipped = Buffer.from(whole)
      flipped[place] = (flipped[place] ?? 0) ^ 0x10
      await writeFile(bad, flipped)
      const keepAt = join(dir, 'kept.tar.gz')
      await expect(restore(bad, target.url, { keepAt })).rejects.toMatchObject({ code: 'invalid_request' })
      await writeFile(bad, whole)
      await truncate(bad, place)
      await expect(restore(bad, target.url, { keepAt })).rejects.toMatchObject({ code: 'invalid_request' })
    }
    expect(await contentOf(target.db)).toEqual(before)
    expect(await readdir(dir)).not.toContain('kept.tar.gz')
  })

  it('of a newer platform is refused with its version', async () => {
    const newer = await rewrite(path, (name, content) => {
      if (name !== HEADER_FILE && name !== MANIFEST_FILE) return content
      const later = (value: Record<string, unknown>) => ({
        ...value,
        version: '9.9.9',
        migrations: [...migrationNames, '9999-later'],
      })
      return editJson(content, later)
    })
    const { url, db } = await emptyDatabase()
    await expect(restore(newer, url)).rejects.toMatchObject({
      code: 'not_supported',
      message: expect.stringContaining('9.9.9'),
    })
    expect(await contentOf(db)).toEqual({})
    const otherForm = await rewrite(path, (name, content) =>
      name === HEADER_FILE ? editJson(content, (value) => ({ ...value, format: 2 })) : content,
    )
    await expect(restore(otherForm, url)).rejects.toMatchObject({ code: 'not_supported' })
  })
})

describe('a restore', () => {
  it('brings what an older version wrote up to this one', async () => {
    const { url, db } = await emptyDatabase()
    await migrateUpTo(db, '0024-data-access')
    await createTeam(db, 'Of before')
    const path = join(dir, 'old.tar.gz')
    await backUpToFile(path, { url, version: VERSION })
    const target = await emptyDatabase()
    await restore(path, target.url)
    const { rows } = await sql<{ name: string }>`SELECT name FROM kysely_migration ORDER BY name`.execute(target.db)
    expect(rows.map(({ name }) => name)).toEqual(migrationNames)
    expect(await target.db.selectFrom('teams').select('name').execute()).toContainEqual({ name: 'Of before' })
  })

  it('into a database that has something wants to be told so, and keeps what was there', async () => {
    const source = await filledDatabase()
    const path = join(dir, 'one.tar.gz')
    await backUpToFile(path, { url: source.url, version: VERSION })
    const target = await filledDatabase()
    await createTeam(target.db, 'Only here')
    const before = await contentOf(target.db)
    await expect(restore(path, target.url)).rejects.toMatchObject({ code: 'conflict' })
    expect(await contentOf(target.db)).toEqual(before)
    const keepAt = join(dir, 'kept.tar.gz')
    expect(await restore(path, target.url, { keepAt })).toMatchObject({ keptAt: keepAt })
    expect(without(await contentOf(target.db))).toEqual(without(await contentOf(source.db)))
    await restore(keepAt, target.url, { keepAt: join(dir, 'again.tar.gz') })
    expect(without(await contentOf(target.db))).toEqual(without(before))
  })

  it('that fails on the way leaves the database as it was', async () => {
    const source = await filledDatabase()
    // What no version writes: an operation of no team. Only the last check, of foreign keys, finds it.
    await sql`ALTER TABLE api_keys DROP CONSTRAINT api_keys_team_id_fkey`.execute(source.db)
    await sql`INSERT INTO api_keys (id, team_id, name, prefix, key_hash, scopes) VALUES ('key-1', 'team-none', 'x', 'x', 'x', '{}')`.execute(
      source.db,
    )
    const path = join(dir, 'one.tar.gz')
    await backUpToFile(path, { url: source.url, version: VERSION })
    const target = await filledDatabase()
    const before = await contentOf(target.db)
    await expect(restore(path, target.url, { keepAt: join(dir, 'kept.tar.gz') })).rejects.toThrow(
      'api_keys_team_id_fkey',
    )
    expect(await contentOf(target.db)).toEqual(before)
    await addCapsule(target.db, target.teamId)
  })

  it('takes nothing out of the object store that may be all there is of a capsule by now', async () => {
    const { url, db, teamId } = await filledDatabase()
    const stored = async (stateId: string, state?: 'hibernated' | 'resuming'): Promise<string> => {
      const id = await addCapsule(db, teamId, { state: state ?? 'paused', desired_state: 'paused' })
      if (state !== undefined) await patchCapsule(db, id, { stored_state: stateId })
      await beginStored(db, { id: stateId, team_id: teamId, capsule_id: id, sealed_by: 'v1.00000000.' })
      await finishStored(db, stateId, { bytes: 1, layers: ['a'], generation: 1 })
      return id
    }
    const [asleep, waking] = [await stored('state-1', 'hibernated'), await stored('state-2', 'resuming')]
    await stored('state-3')
    const path = join(dir, 'one.tar.gz')
    await backUpToFile(path, { url, version: VERSION })
    const target = await emptyDatabase()
    await restore(path, target.url, { withoutKeys: true })
    const capsules = await findCapsules(target.db, [asleep, waking])
    expect(capsules.map(({ state, stored_state: stateId }) => [state, stateId])).toEqual([
      ['hibernated', 'state-1'],
      ['hibernated', 'state-2'],
    ])
    expect(await listUnwantedStates(target.db, 10)).toEqual([])
    expect(await target.db.selectFrom('stored_layers').selectAll().execute()).toEqual([])
  })

  it('is refused while a control plane uses the database', async () => {
    const { url } = await filledDatabase()
    const path = join(dir, 'one.tar.gz')
    await backUpToFile(path, { url, version: VERSION })
    const used = openDatabase({ url })
    open_.push(used)
    await sql`SELECT 1`.execute(used)
    const keepAt = join(dir, 'kept.tar.gz')
    await expect(restore(path, url, { keepAt })).rejects.toMatchObject({ code: 'conflict' })
    expect(await readdir(dir)).toEqual(['one.tar.gz'])
  })

  it('says which keys are missing before it touches anything', async () => {
    const source = await filledDatabase()
    const keyring = new Keyring([KEY])
    await addCapsule(source.db, source.teamId, { egress_rules: keyring.seal('a secret', 'x') })
    const path = join(dir, 'one.tar.gz')
    const { manifest } = await backUpToFile(path, { url: source.url, version: VERSION })
    const [keyId = ''] = manifest.key_ids
    expect(manifest.key_ids).toEqual([keyring.sealPrefix.split('.')[1]])
    const target = await emptyDatabase()
    const refusal = restore(path, target.url, { keyring: new Keyring([Buffer.alloc(32, 8)]) })
    await expect(refusal).rejects.toMatchObject({ code: 'invalid_config', message: expect.stringContaining(keyId) })
    expect(await contentOf(target.db)).toEqual({})
    expect(await restore(path, target.url, { keyring })).toMatchObject({ missingKeys: [] })
    const other = await emptyDatabase()
    expect(await restore(path, other.url, { withoutKeys: true })).toMatchObject({ missingKeys: [keyId] })
  })

  it('tells of a trail that was broken before, and restores it as it was', async () => {
    const source = await filledDatabase()
    await sql`ALTER TABLE audit_log DISABLE TRIGGER USER`.execute(source.db)
    await sql`UPDATE audit_log SET action = 'forged' WHERE seq = 3`.execute(source.db)
    const path = join(dir, 'one.tar.gz')
    await backUpToFile(path, { url: source.url, version: VERSION })
    const target = await emptyDatabase()
    const { brokenChains, auditEntries } = await restore(path, target.url)
    expect({ brokenChains, auditEntries }).toEqual({
      brokenChains: [{ teamId: source.teamId, seq: 3 }],
      auditEntries: 2,
    })
  })

  it('reads what is said of an archive as it was written', async () => {
    const { url } = await filledDatabase()
    const { manifest } = await backUpToFile(join(dir, 'one.tar.gz'), { url, version: VERSION })
    expect(manifestSchema.parse(JSON.parse(JSON.stringify(manifest)))).toEqual(manifest)
    expect(manifest.migrations).toEqual(migrationNames)
  })
})
