import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { waitFor } from '@wrenn/base'
import type { Capsule, TemplateBuild, TemplateBuildLog } from '@wrenn/protocol'
import { FakeHost, startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from './store/database.js'
import { freshDatabase, json } from './testing/harness.js'

const packageDir = fileURLToPath(new URL('../', import.meta.url))
const BUILDS = '/v1/templates/builds'
const patient = (what: string) => ({ timeoutMs: 60_000, everyMs: 50, what })

/** Where a build is when its control plane is killed, in the order in which a build gets there. */
const MARKS = [
  'build:taken',
  'build:planned',
  'build:created',
  'build:started',
  'build:step_begun',
  'build:step_done',
  'build:step_saved',
  'build:step_kept',
  'build:stage_kept',
  'build:finished',
  'build:saved',
  'build:published',
  'build:cleared',
] as const

let dir: string
let postgres: TestPostgres
let host: FakeHost
let db: Db
let databaseUrl: string
let child: ChildProcess
let url: string
let key: string

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-kill-'))
  postgres = await startTestPostgres()
  databaseUrl = await freshDatabase(postgres.url)
  host = await FakeHost.start()
  db = openDatabase({ url: databaseUrl })
  await startControlPlane()
}, 120_000)
afterAll(async () => {
  child.kill('SIGKILL')
  await db.destroy()
  await host[Symbol.asyncDispose]()
  await postgres[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
}, 30_000)

const at = (name: string): string => join(dir, name)

/** As a process of its own, which tests kill. */
async function startControlPlane(): Promise<void> {
  const env = {
    DATABASE_URL: databaseUrl,
    WRENN_HOST_AGENT_ADDRESS: host.address,
    WRENN_PORT: '0',
    WRENN_API_KEY_FILE: at('api-key'),
    WRENN_BUILD_FILES_DIR: at('files'),
    WRENN_STEP_FILE: at('step'),
  }
  const program = `
    import { writeFileSync } from 'node:fs'
    import { silentLogger } from '@wrenn/base'
    import { readConfig } from './src/config.js'
    import { startControlPlane } from './src/control-plane.js'
    const { url } = await startControlPlane(readConfig(${JSON.stringify(env)}), silentLogger, { tickMs: 50 })
    writeFileSync(${JSON.stringify(at('url'))}, url)`
  await rm(at('url'), { force: true })
  const node = ['--conditions=wrenn-source', '--import', 'tsx', '--input-type=module', '--eval', program]
  child = spawn(process.execPath, node, { cwd: packageDir, stdio: ['ignore', 'ignore', 'inherit'] })
  url = await waitFor(
    async () => (await readFile(at('url'), 'utf8').catch(() => '')) || undefined,
    patient('a control plane'),
  )
  key = (await readFile(at('api-key'), 'utf8')).trim()
}

/** What a process that died holds is free when its time is over: now. */
async function expireLeases(): Promise<void> {
  await sql`UPDATE template_builds SET due_at = now() WHERE state = 'building'`.execute(db)
  await sql`UPDATE operations SET lease_until = now() WHERE state = 'running'`.execute(db)
}

async function call(method: string, path: string, body?: object): Promise<Response> {
  const headers = { 'x-api-key': key, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }
  return await fetch(url + path, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
}

const run = (line: string) => ({ type: 'RUN', args: [line] })
const workdir = { type: 'WORKDIR', args: ['/app'] }
/** Each step adds to what is there: one that is done twice, or not at all, shows. */
const stagesOf = (name: string) => [
  { from: 'base', steps: [workdir, run(`echo ${name} >> part`)] },
  {
    from: 'base',
    steps: [
      workdir,
      run('echo 1 >> all'),
      { type: 'COPY', args: ['app/part', './'], stage: 0 },
      run('cat part >> all'),
    ],
  },
]

async function begin(name: string): Promise<string> {
  const { id } = await json<TemplateBuild>(await call('POST', BUILDS, { name }), 201)
  // Who is killed at its first step has it, and may not have answered.
  await call('POST', `${BUILDS}/${id}/start`, { stages: stagesOf(name) }).catch(() => {})
  return id
}

async function ended(id: string) {
  const status = async () => {
    const { build, lines } = await json<TemplateBuildLog>(
      await call('GET', `${BUILDS}/${id}/log?from=0&limit=1000`),
      200,
    )
    return build.ended_at === undefined
      ? undefined
      : { state: build.state, text: lines.map((line) => line.message).join('\n') }
  }
  return await waitFor(status, patient(`the build ${id} to end`))
}

async function read(template: string, path: string): Promise<string> {
  const { id } = await json<Capsule>(await call('POST', '/v1/capsules', { template }), 201)
  const text = await (await call('GET', `/v1/capsules/${id}/files?path=${path}`)).text()
  await call('DELETE', `/v1/capsules/${id}`)
  return text
}

/** What nothing owns, or is not done with. */
async function leftovers() {
  const rows = async (text: string) => (await sql.raw<{ id: string }>(text).execute(db)).rows.map(({ id }) => id)
  const known = await rows(`SELECT id FROM snapshots WHERE state = 'ready'`)
  const files = await readdir(at('files'), { recursive: true }).catch(() => [])
  return {
    capsules: [...host.capsules.keys()],
    records: await rows(`SELECT id FROM capsules WHERE state NOT IN ('stopped', 'error')`),
    builds: await rows('SELECT id FROM template_builds WHERE ended_at IS NULL OR capsule_id IS NOT NULL'),
    operations: await rows(`SELECT id FROM operations WHERE state = 'running'`),
    unmade: await rows(`SELECT id FROM snapshots WHERE state NOT IN ('ready', 'deleted')`),
    unnamed: await rows(`SELECT id FROM snapshots WHERE state = 'ready' AND hidden AND steps_hash IS NULL`),
    unknown: [...host.snapshots.keys()].filter((id) => !known.includes(id)),
    lost: known.filter((id) => !host.snapshots.has(id)),
    unfinished: files.filter((name) => name.endsWith('.part')),
  }
}

describe('a build whose control plane is killed', () => {
  it.each(MARKS)(
    'at %s goes on, is what an undisturbed one is, and leaves nothing',
    async (mark) => {
      const name = mark.replace(/\W/g, '-').replaceAll('_', '-')
      await writeFile(at('step'), `${mark} kill\n`)
      const gone = once(child, 'exit')
      const id = await begin(name)
      expect(await gone).toEqual([null, 'SIGKILL'])
      await expireLeases()
      await startControlPlane()
      const done = await ended(id)
      const expected = ['ready', `1\n${name}\n`, `${name}\n`]
      const found = async (state: string) => [state, await read(name, '/app/all'), await read(name, '/app/part')]
      expect(await found(done.state), done.text).toEqual(expected)
      const again = await ended(await begin(name))
      expect(await found(again.state), again.text).toEqual(expected)
      expect(again.text.match(/^CACHED/gm)).toHaveLength(4)
      await expect.poll(leftovers, { timeout: 30_000 }).toEqual({
        ...{ capsules: [], records: [], builds: [], operations: [], unmade: [], unnamed: [], unknown: [], lost: [] },
        unfinished: [],
      })
    },
    120_000,
  )

  it('can be at each step that there is', async () => {
    const folder = join(packageDir, 'src/domain/templates')
    const sources = await Promise.all((await readdir(folder)).map((name) => readFile(join(folder, name), 'utf8')))
    const reached = sources.flatMap((source) => [...source.matchAll(/reach\('(build:\w+)'\)/g)].map(([, mark]) => mark))
    expect([...new Set(reached)].sort()).toEqual([...MARKS].sort())
  })
})
