import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLogger, waitFor } from '@wrenn/base'
import type { AuditPage, Capsule, NewApiKey, Template } from '@wrenn/protocol'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from '../store/database.js'
import { listSpentSnapshots } from '../store/step-results.js'
import { expireDrafts, pruneBuilds } from '../store/template-builds.js'
import { json, type Platform, startPlatform } from '../testing/harness.js'

const HOUR_MS = 3600 * 1000

interface Begun {
  readonly templateID: string
  readonly buildID: string
}

interface Status {
  readonly status: 'waiting' | 'building' | 'ready' | 'error'
  readonly logEntries: readonly { readonly message: string; readonly step: string; readonly level: string }[]
  readonly reason?: { readonly message: string; readonly step?: string }
}

interface Refusal {
  readonly code: number
  readonly message: string
}

let dir: string
let platform: Platform
let db: Db

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-builds-'))
  const env = {
    WRENN_BUILD_FILES_DIR: dir,
    WRENN_BUILD_UPLOAD_MAX_MIB: '1',
    WRENN_BUILD_FILES_MAX_MIB: '3',
    WRENN_BUILD_LOG_MAX_MIB: '1',
    WRENN_BUILD_READY_SEC: '2',
    WRENN_BUILD_MAX_OPEN: '20',
    WRENN_BUILD_CACHE_RESULTS: '40',
  }
  platform = await startPlatform({ env })
  db = openDatabase({ url: platform.databaseUrl, logger: silentLogger })
}, 180_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
}, 30_000)

const run = (line: string, more: object = {}) => ({ type: 'RUN', args: [line], ...more })
/** The fake host's guests know root alone. */
const asRoot = [
  { type: 'USER', args: ['root'] },
  { type: 'WORKDIR', args: ['/app'] },
]

let count = 0
const newName = (): string => `made-${count++}`

async function begin(name: string, body: object = {}): Promise<Begun> {
  return await json<Begun>(await platform.call('POST', '/v3/templates', { name, ...body }), 202)
}

async function submit({ templateID, buildID }: Begun, body: object): Promise<Response> {
  const from = 'fromTemplate' in body ? {} : { fromImage: 'e2bdev/base' }
  return await platform.call('POST', `/v2/templates/${templateID}/builds/${buildID}`, { ...from, ...body })
}

async function status({ templateID, buildID }: Begun, offset = 0): Promise<Status> {
  const path = `/templates/${templateID}/builds/${buildID}/status?logsOffset=${offset}`
  return await json<Status>(await platform.call('GET', path), 200)
}

async function ended(begun: Begun): Promise<Status> {
  return await waitFor(
    async () => {
      const now = await status(begun)
      return now.status === 'ready' || now.status === 'error' ? now : undefined
    },
    { timeoutMs: 25_000, what: 'the build to end' },
  )
}

async function build(name: string, steps: readonly object[], body: object = {}): Promise<Status> {
  const begun = await begin(name)
  expect((await submit(begun, { steps: [...asRoot, ...steps], ...body })).status).toBe(202)
  return await ended(begun)
}

async function refusal(response: Response, status: number): Promise<string> {
  const body = await json<Refusal>(response, status)
  expect(body.code).toBe(status)
  return body.message
}

const messages = ({ logEntries }: Status): string[] => logEntries.map(({ message }) => message)

/** What a sandbox of the template has in a file, and prints. */
async function inside<T>(template: string, look: (capsule: Capsule) => Promise<T>): Promise<T> {
  const { sandboxID: id } = await json<{ sandboxID: string }>(
    await platform.call('POST', '/v2/sandboxes', { templateID: template }),
    201,
  )
  try {
    return await look(await platform.get(id))
  } finally {
    await platform.call('DELETE', `/v1/capsules/${id}`)
  }
}

async function read(template: string, path: string): Promise<string> {
  return await inside(template, async ({ id }) => {
    const answer = await platform.call('GET', `/v1/capsules/${id}/files?path=${encodeURIComponent(path)}`)
    return answer.status === 200 ? await answer.text() : `${answer.status}`
  })
}

/** A tar of these files, as clients pack it. */
async function pack(files: Readonly<Record<string, string>>): Promise<{ readonly tar: Buffer; readonly hash: string }> {
  const tree = await mkdtemp(join(tmpdir(), 'wrenn-test-pack-'))
  try {
    for (const [path, content] of Object.entries(files)) {
      execFileSync('mkdir', ['-p', join(tree, path, '..')])
      await writeFile(join(tree, path), content)
    }
    const tar = execFileSync('tar', ['-czf', '-', '-C', tree, '.'])
    return { tar, hash: createHash('sha256').update(JSON.stringify(files)).digest('hex') }
  } finally {
    await rm(tree, { recursive: true })
  }
}

async function link({ templateID }: Begun, hash: string): Promise<{ readonly present: boolean; readonly url: string }> {
  return await json(await platform.call('GET', `/templates/${templateID}/files/${hash}`), 201)
}

async function upload(begun: Begun, tar: Buffer, hash: string): Promise<Response> {
  return await fetch((await link(begun, hash)).url, { method: 'PUT', body: new Uint8Array(tar) })
}

async function setState({ buildID }: Begun, state: 'error'): Promise<void> {
  await db.updateTable('template_builds').set({ state, ended_at: sql<Date>`now()` }).where('id', '=', buildID).execute()
}

const noCapsuleLeft = async (): Promise<void> => {
  await expect
    .poll(async () => (await json<Capsule[]>(await platform.call('GET', '/v1/capsules'), 200)).map(({ name }) => name))
    .toEqual([])
}

describe('a build', () => {
  it('makes a template of its steps, whose sandboxes have its files, user, directory and environment', async () => {
    const name = newName()
    const { tar, hash } = await pack({ 'src/a.txt': 'A', 'src/deep/b.txt': 'B' })
    const begun = await begin(name, { cpuCount: 1, memoryMB: 256 })
    expect((await upload(begun, tar, hash)).status).toBe(200)
    expect(await link(begun, hash)).toMatchObject({ present: true })
    const steps = [
      ...asRoot,
      { type: 'ENV', args: ['ONE', '1'] },
      { type: 'ENV', args: ['TWO', 'x$ONE', 'BOTH', `$${'{ONE}'}-$ONE-$NOBODY-\\$ONE`] },
      { type: 'COPY', args: ['src', 'data/', '', '0640'], filesHash: hash },
      run('echo "$TWO in $(pwd | sed "s|.*/||")" > said; echo to the log; echo wrong >&2'),
    ]
    expect(
      (await submit(begun, { steps, startCmd: 'echo started > mark; sleep 60', readyCmd: '[ -f mark ]' })).status,
    ).toBe(202)
    const done = await ended(begun)
    expect(done, JSON.stringify(done)).toMatchObject({ status: 'ready' })
    expect(messages(done)).toEqual(
      expect.arrayContaining(['FROM base', 'to the log', 'wrong', expect.stringMatching(/^Everything is done/)]),
    )
    expect(messages(done).join('\n')).not.toContain('x$ONE')
    await inside(name, async ({ id, vcpus, memory_mb: memory }) => {
      expect([vcpus, memory]).toEqual([1, 256])
      const answer = await platform.call('POST', `/v1/capsules/${id}/exec`, {
        cmd: '/bin/sh',
        args: ['-c', 'cat said data/a.txt data/deep/b.txt mark; stat -c %a data/a.txt; echo "$ONE $TWO $BOTH"'],
      })
      const { stdout } = await json<{ stdout: string }>(answer, 200)
      expect(stdout).toBe('x1 in app\nABstarted\n640\n1 x1 1-1-$NOBODY-$ONE\n')
    })
    await noCapsuleLeft()
  })

  it('takes what it has in common with an earlier one from what was kept, unless it is told not to', async () => {
    const mark = randomBytes(4).toString('hex')
    const steps = [run(`echo ${mark} $RANDOM$RANDOM > first`), run('cp first second')]
    const [one, two, three] = [newName(), newName(), newName()]
    expect(messages(await build(one, steps)).filter((text) => text.startsWith('CACHED'))).toEqual([])
    const again = messages(await build(two, steps)).filter((text) => text.startsWith('CACHED'))
    expect(again).toHaveLength(4)
    expect(await read(two, '/app/second')).toBe(await read(one, '/app/first'))
    const partly = await build(three, [steps[0] ?? {}, { ...steps[1], force: true }])
    expect(messages(partly).filter((text) => text.startsWith('CACHED'))).toHaveLength(3)
    await build(three, steps, { force: true })
    expect(await read(three, '/app/first')).not.toBe(await read(one, '/app/first'))
  })

  it('does its steps anew when what was kept does not load, and keeps them again', async () => {
    const mark = randomBytes(4).toString('hex')
    const steps = [run(`echo ${mark} > first`)]
    await build(newName(), steps)
    platform.host.failNext('create')
    const name = newName()
    const anew = await build(name, steps)
    expect([anew.status, messages(anew).join('\n')]).toEqual([
      'ready',
      expect.stringContaining('the step is done again'),
    ])
    expect(messages(anew).filter((text) => text.startsWith('CACHED'))).toEqual([])
    expect(await read(name, '/app/first')).toBe(`${mark}\n`)
    expect(messages(await build(newName(), steps)).filter((text) => text.startsWith('CACHED'))).toHaveLength(3)
    await noCapsuleLeft()
  })

  it('keeps as many results as a team may have, the newest of each, those used last', async () => {
    const mark = randomBytes(4).toString('hex')
    const steps = [run(`: ${mark}`), run('true')]
    await build(newName(), steps)
    await build(newName(), steps, { force: true })
    const kept = async () =>
      await db
        .selectFrom('snapshots')
        .selectAll()
        .where('steps_hash', 'is not', null)
        .where('state', '=', 'ready')
        .execute()
    await expect
      .poll(async () => (await kept()).length - new Set((await kept()).map((row) => row.steps_hash)).size)
      .toBe(0)
    const all = await kept()
    const spent = await listSpentSnapshots(db, { maxResults: 1, maxUnusedMs: HOUR_MS }, 1_000)
    expect(spent.filter((row) => row.steps_hash !== null)).toHaveLength(all.length - 1)
    await sql`UPDATE snapshots SET used_at = now() - interval '2 hours' WHERE id = ${all[0]?.id}`.execute(db)
    const old = await listSpentSnapshots(db, { maxResults: 1_000, maxUnusedMs: HOUR_MS }, 1_000)
    expect(old.map(({ id }) => id)).toEqual([all[0]?.id])
  })

  it('that fails says at which step, and what the step printed; its template stays as it was', async () => {
    const name = newName()
    expect(await build(name, [run('echo good > state')])).toMatchObject({ status: 'ready' })
    const failed = await build(name, [run('echo bad > state'), run('echo before the end; exit 7')])
    expect(failed).toMatchObject({ status: 'error', reason: { step: '4' } })
    expect(failed.reason?.message).toContain('exit code 7')
    expect(messages(failed)).toContain('before the end')
    expect(await read(name, '/app/state')).toBe('good\n')
    await noCapsuleLeft()
  })

  it('that is done again replaces its template, and what had the name goes', async () => {
    const name = newName()
    await build(name, [run('echo 1 > v')])
    const listed = await json<Template[]>(await platform.call('GET', '/v1/snapshots?type=snapshot'), 200)
    const before = listed.find((template) => template.name === name)
    await build(name, [run('echo 2 > v')])
    expect(await read(name, '/app/v')).toBe('2\n')
    await expect.poll(() => platform.host.snapshots.has(before?.snapshot_id ?? '')).toBe(false)
  })

  it('begins with another template of the team, as whom and where that ended', async () => {
    const [first, second] = [newName(), newName()]
    await build(first, [{ type: 'ENV', args: ['A', 'a'] }, run('echo base > of')])
    const begun = await begin(second, { cpuCount: 2, memoryMB: 1024 })
    await submit(begun, { fromTemplate: first, steps: [run('echo "$(cat of) $A" > of')] })
    const done = await ended(begun)
    expect(done).toMatchObject({ status: 'ready' })
    expect(messages(done).join('\n')).toContain('CPUs and memory are those of')
    expect(await read(second, '/app/of')).toBe('base a\n')
  })

  it('leaves its environment and user also to snapshots of its sandboxes', async () => {
    const [name, copy] = [newName(), newName()]
    await build(name, [{ type: 'ENV', args: ['KEPT', 'yes'] }])
    await inside(name, async ({ id }) => {
      await json(await platform.call('POST', '/v1/snapshots', { capsule_id: id, name: copy }), 201)
    })
    const row = await inside(copy, async ({ id }) => {
      return await db.selectFrom('capsules').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
    })
    expect(row).toMatchObject({ default_user: 'root', default_cwd: '/app', envs: { KEPT: 'yes' } })
  })

  it('fails when its start command does, or its ready command never succeeds', async () => {
    const failing = await build(newName(), [], { startCmd: 'echo no luck; exit 3', readyCmd: 'false' })
    expect(failing).toMatchObject({ status: 'error', reason: { step: 'finalize' } })
    expect(failing.reason?.message).toContain('exit code 3')
    const late = await build(newName(), [], { readyCmd: 'exit 1' })
    expect(late.reason?.message).toContain('WRENN_BUILD_READY_SEC')
  })

  it('keeps its log within its limit, and takes any bytes', async () => {
    const odd = await build(newName(), [run("printf 'a\\0b \\377 \\033[31mred\\033[0m\\n'")])
    expect(messages(odd)).toContain('a\uFFFDb \uFFFD red')
    const name = newName()
    const begun = await begin(name)
    await submit(begun, { steps: [...asRoot, run('yes | head -c 8000000; echo the end')] })
    expect(await ended(begun)).toMatchObject({ status: 'ready' })
    const { rows } = await sql<{ n: number; cut: boolean }>`SELECT count(*)::int AS n,
      bool_or(message LIKE '%WRENN_BUILD_LOG_MAX_MIB%') AS cut FROM template_build_logs WHERE build_id = ${begun.buildID}`.execute(
      db,
    )
    expect(rows[0]?.cut).toBe(true)
    expect(rows[0]?.n).toBeLessThan(20_000)
    const page = await status(begun, 100)
    expect(page.logEntries).toHaveLength(100)
  })

  it('that is cancelled never becomes a template, at whichever moment', async () => {
    const name = newName()
    const held = platform.host.holdNext('snapshot', 'after')
    const begun = await begin(name)
    await submit(begun, { steps: [...asRoot], startCmd: 'sleep 60', readyCmd: 'true' })
    await held.reached
    expect((await platform.call('DELETE', `/templates/${name}`)).status).toBe(204)
    held.release()
    expect(await ended(begun)).toMatchObject({ status: 'error', reason: { message: 'The build was cancelled.' } })
    await noCapsuleLeft()
    expect((await platform.call('GET', `/templates/aliases/${name}`)).status).toBe(404)
    await expect
      .poll(async () => {
        const { rows } =
          await sql`SELECT 1 FROM snapshots WHERE build_id = ${begun.buildID} AND state <> 'deleted'`.execute(db)
        return rows.length
      })
      .toBe(0)
  })

  it('whose time is over while its snapshot is made never becomes a template', async () => {
    const name = newName()
    const held = platform.host.holdNext('snapshot', 'after')
    const begun = await begin(name)
    await submit(begun, { steps: asRoot, readyCmd: 'true' })
    await held.reached
    await sql`UPDATE template_builds SET deadline_at = now() - interval '1 second' WHERE id = ${begun.buildID}`.execute(
      db,
    )
    held.release()
    const over = await ended(begun)
    expect(over.reason?.message).toContain('WRENN_BUILD_TIMEOUT_SEC')
    expect((await platform.call('GET', `/templates/aliases/${name}`)).status).toBe(404)
  })

  it('goes on after a restart of the control plane, from the last step whose result was kept', async () => {
    const name = newName()
    const begun = await begin(name)
    const steps = [...asRoot, run('echo kept > kept'), run('[ -e /proc/1 ] && sleep 3; cat kept > done')]
    await submit(begun, { steps })
    await expect.poll(async () => messages(await status(begun)).some((text) => text.startsWith('[4/4]'))).toBe(true)
    await platform.restart()
    const done = await ended(begun)
    expect(done).toMatchObject({ status: 'ready' })
    expect(messages(done)).toContain('The build was interrupted and goes on.')
    expect(messages(done).some((text) => text.startsWith('CACHED [3/4]'))).toBe(true)
    expect(await read(name, '/app/done')).toBe('kept\n')
    await noCapsuleLeft()
  })

  it('is tried again when its host fails, and ends in an error when that does not stop', async () => {
    platform.host.failNext('create')
    const done = await build(newName(), [run('true')])
    expect(done).toMatchObject({ status: 'ready' })
    expect(messages(done).join('\n')).toContain('tried again')
  })

  it('is forgotten when many have ended after it, or long ago, and given up when nobody says of what it is made', async () => {
    const draft = await begin(newName())
    await expireDrafts(db, HOUR_MS, { message: 'late' })
    expect((await status(draft)).status).toBe('waiting')
    await expireDrafts(db, 0, { message: 'late' })
    expect(await status(draft)).toMatchObject({ status: 'error', reason: { message: 'late' } })
    await noCapsuleLeft()
    const left = async () => (await db.selectFrom('template_builds').select('id').execute()).map(({ id }) => id)
    await pruneBuilds(db, { olderThanMs: HOUR_MS, kept: 2 }, 1_000)
    const ids = await left()
    expect([ids.length, ids.includes(draft.buildID)]).toEqual([2, true])
    await sql`UPDATE template_builds SET ended_at = now() - interval '2 hours' WHERE id = ${draft.buildID}`.execute(db)
    await pruneBuilds(db, { olderThanMs: HOUR_MS, kept: 2 }, 1_000)
    expect(await left()).toEqual(ids.filter((id) => id !== draft.buildID))
  })

  it('is in the audit trail, from its begin to its end', async () => {
    const name = newName()
    await build(name, [])
    await platform.call('DELETE', `/templates/${name}`)
    await expect
      .poll(async () => {
        const path = `/v1/audit-logs?resource_type=template&resource_id=${name}`
        const { items } = await json<AuditPage>(await platform.call('GET', path), 200)
        return items.map(({ action, outcome }) => `${action} ${outcome}`).reverse()
      })
      .toEqual(['template.create success', 'template.build success', 'template.built success'])
  })
})

describe('what cannot be built', () => {
  it('is refused when it begins: sizes, names, tags', async () => {
    const post = async (body: object) => await platform.call('POST', '/v3/templates', body)
    expect(await refusal(await post({ name: 'x', memoryMB: 127 }), 400)).toContain('memoryMB')
    expect(await refusal(await post({ name: 'x', cpuCount: 9 }), 400)).toContain('WRENN_MAX_VCPUS')
    expect(await refusal(await post({ name: 'base' }), 409)).toContain('built-in')
    expect(await refusal(await post({ name: 'x:v 2' }), 400)).toContain('name')
    expect(await refusal(await post({ name: 'x', tags: ['v/2'] }), 400)).toContain('tags')
    expect(await refusal(await post({ name: 'x', tags: Array(21).fill('v2') }), 400)).toContain('tags')
    expect(await refusal(await post({}), 400)).toContain('name')
  })

  it('is refused when it says its steps: images, files, arguments, twice', async () => {
    const begun = await begin(newName())
    const say = async (body: object, status = 400) => await refusal(await submit(begun, body), status)
    for (const fromImage of ['Python', 'python:', 'http://x.example/a', 'u:p@x.example/a', 'python@sha256:12']) {
      expect(await say({ fromImage })).toContain('no image reference')
    }
    const registry = { type: 'aws', awsAccessKeyId: 'a', awsSecretAccessKey: 'hidden', awsRegion: 'r' }
    expect(await say({ fromImage: 'x.example/a', fromImageRegistry: registry }, 501)).toContain('AWS')
    const password = { secret: 'hidden' }
    const told = await say({
      fromImage: 'x.example/a',
      fromImageRegistry: { type: 'registry', username: 'u', password },
    })
    expect(told).toContain('password')
    expect(told).not.toContain('hidden')
    expect(await say({ fromTemplate: 'nothing' }, 404)).toContain('nothing')
    const hash = '0'.repeat(64)
    expect(await say({ steps: [{ type: 'COPY', args: ['a', 'b'], filesHash: hash }] })).toContain('not uploaded')
    expect(await say({ steps: [{ type: 'COPY', args: ['../a', 'b'], filesHash: hash }] })).toContain('steps.0')
    expect(await say({ steps: [run('')] })).toContain('RUN')
    expect(await say({ steps: [{ type: 'ENV', args: ['A'] }] })).toContain('ENV')
    expect(await say({ steps: [run('a\0b')] })).toContain('NUL')
    expect((await submit(begun, { steps: [] })).status).toBe(202)
    expect(await say({ steps: [] }, 409)).toContain('started before')
    expect(await refusal(await submit({ ...begun, buildID: 'bld-x' }, { steps: [] }), 404)).toContain('bld-x')
  })

  it('is refused where a snapshot has the name that no build has made', async () => {
    const capsule = await platform.create()
    const name = newName()
    await json(await platform.call('POST', '/v1/snapshots', { capsule_id: capsule.id, name }), 201)
    expect(await refusal(await platform.call('POST', '/v3/templates', { name }), 409)).toContain(name)
    await platform.call('DELETE', `/v1/capsules/${capsule.id}`)
  })

  it('is refused beyond the number of builds that a team may have open', async () => {
    const names = Array.from({ length: 25 }, newName)
    const answers = await Promise.all(names.map((name) => platform.call('POST', '/v3/templates', { name })))
    const statuses = answers.map(({ status }) => status)
    expect(statuses).toContain(429)
    for (const name of names) await platform.call('DELETE', `/templates/${name}`)
    expect((await platform.call('POST', '/v3/templates', { name: names[0] })).status).toBe(202)
    await platform.call('DELETE', `/templates/${names[0]}`)
  })

  it("is another team's, or needs another scope", async () => {
    const begun = await begin(newName())
    const { key } = await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', { scopes: ['capsules'] }), 201)
    const as = { 'x-api-key': key }
    expect((await platform.call('POST', '/v3/templates', { name: 'x' }, as)).status).toBe(403)
    const path = `/templates/${begun.templateID}`
    expect((await platform.call('GET', `${path}/files/${'0'.repeat(64)}`, undefined, as)).status).toBe(403)
    expect((await platform.call('GET', `${path}/builds/${begun.buildID}/status`, undefined, as)).status).toBe(200)
    await platform.call('DELETE', path)
  })
})

describe('an upload', () => {
  it('needs its link as it was given, and in time', async () => {
    const begun = await begin(newName())
    const { url } = await link(begun, 'a'.repeat(64))
    const put = async (to: string) => (await fetch(to, { method: 'PUT', body: 'x' })).status
    expect(await put(url.replace('a'.repeat(64), 'b'.repeat(64)))).toBe(403)
    expect(await put(url.replace(/expires=\d+/, 'expires=9999999999'))).toBe(403)
    expect(await put(url.replace(/signature=.*/, 'signature=0'))).toBe(403)
    expect(await put(url.replace(/&signature=.*/, ''))).toBe(400)
    expect(await put(url)).toBe(200)
    await platform.call('DELETE', `/templates/${begun.templateID}`)
    expect(await refusal(await platform.call('GET', `/templates/nobody/files/${'a'.repeat(64)}`), 404)).toContain(
      'nobody',
    )
  })

  it('ends with the builds that were under way when its link was given, and with the key that asked for it', async () => {
    const put = async (to: string) => await fetch(to, { method: 'PUT', body: 'x' })
    const hash = 'c'.repeat(64)
    const name = newName()
    const first = await begin(name)
    const second = await begin(name)
    const { url } = await link(second, hash)
    const { url: another } = await link(first, 'd'.repeat(64))
    expect((await put(url.replace(second.buildID, first.buildID))).status).toBe(403)
    await setState(second, 'error')
    // The first one may have asked for it: clients name the template only.
    expect((await put(url)).status).toBe(200)
    await platform.call('DELETE', `/templates/${name}`)
    expect(await refusal(await put(url), 403)).toContain('has ended')
    const later = await begin(name)
    expect((await put(another)).status).toBe(403)
    const made = await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', { scopes: ['templates'] }), 201)
    const asked = await platform.call('GET', `/templates/${name}/files/${hash}`, undefined, { 'x-api-key': made.key })
    const theirs = await json<{ url: string }>(asked, 201)
    expect((await put(theirs.url)).status).toBe(200)
    await platform.call('DELETE', `/v1/api-keys/${made.id}`)
    expect(await refusal(await put(theirs.url), 403)).toContain('key or session')
    expect((await upload(later, Buffer.from('x'), hash)).status).toBe(200)
    await platform.call('DELETE', `/templates/${name}`)
  })

  it('is bounded by what arrives, alone and with the others of its team, and leaves nothing when it is refused', async () => {
    const begun = await begin(newName())
    const mib = Buffer.alloc(1024 * 1024)
    expect((await upload(begun, Buffer.alloc(mib.length + 1), '1'.repeat(64))).status).toBe(413)
    // Without a length that would tell.
    const chunked = (async function* () {
      for (let at = 0; at < 20; at++) yield mib.subarray(0, 100_000)
    })()
    const { url } = await link(begun, '2'.repeat(64))
    const answer = await fetch(url, {
      method: 'PUT',
      body: ReadableStream.from(chunked) as ReadableStream,
      duplex: 'half',
    } as RequestInit)
    expect(answer.status).toBe(413)
    const digits = ['3', '4', '5', '6']
    const statuses = await Promise.all(digits.map(async (digit) => (await upload(begun, mib, digit.repeat(64))).status))
    expect(statuses).toContain(413)
    const files = (await readdir(dir, { recursive: true })).filter((name) => name.includes('.sealed'))
    expect(files.filter((name) => name.endsWith('.part'))).toEqual([])
    await platform.call('DELETE', `/templates/${begun.templateID}`)
  })
})
