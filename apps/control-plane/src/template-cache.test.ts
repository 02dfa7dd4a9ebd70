import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AppError, silentLogger } from '@wrenn/base'
import type { TemplateBuild, TemplateBuildLog } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from './store/database.js'
import { followBuild } from './testing/followed-build.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

const BUILDS = '/v1/templates/builds'
/** Several builds in a row, on a machine that is busy. */
const BUSY_MS = 240_000
let dir: string
let platform: Platform
let db: Db

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-cache-'))
  platform = await startPlatform({ env: { WRENN_BUILD_FILES_DIR: dir } })
  db = openDatabase({ url: platform.databaseUrl, logger: silentLogger })
}, 180_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
}, 30_000)

let count = 0
const newName = (): string => `cached-${count++}`
const run = (line: string) => ({ type: 'RUN', args: [line] })
const workdir = { type: 'WORKDIR', args: ['/app'] }
const stage = (...steps: object[]) => ({ from: 'base', steps: [workdir, ...steps] })

async function begin(name: string, stages: readonly object[]): Promise<TemplateBuild> {
  const begun = await json<TemplateBuild>(await platform.call('POST', BUILDS, { name }), 201)
  await json(await platform.call('POST', `${BUILDS}/${begun.id}/start`, { stages }), 202)
  return begun
}

async function ended(begun: TemplateBuild) {
  const { build, messages } = await followBuild(platform, begun)
  return { state: build.state, messages, text: messages.join('\n') }
}

/** Until now. */
async function said({ id }: TemplateBuild): Promise<string> {
  const { lines } = await json<TemplateBuildLog>(await platform.call('GET', `${BUILDS}/${id}/log?from=0`), 200)
  return lines.map(({ message }) => message).join('\n')
}

const build = async (name: string, stages: readonly object[]) => await ended(await begin(name, stages))
const cached = ({ messages }: { readonly messages: readonly string[] }): number =>
  messages.filter((message) => message.startsWith('CACHED')).length

async function read(template: string, path: string): Promise<string> {
  const { id } = await platform.create({ template })
  const answer = await platform.call('GET', `/v1/capsules/${id}/files?path=${encodeURIComponent(path)}`)
  await platform.call('DELETE', `/v1/capsules/${id}`)
  return answer.status === 200 ? await answer.text() : `${answer.status}`
}

/** Ids of what is kept of the steps of a team's builds since then, the oldest first. */
async function results(since: number): Promise<string[]> {
  const query = db.selectFrom('snapshots').select('id').where('steps_hash', 'is not', null).where('seq', '>', since)
  return (await query.orderBy('seq').execute()).map(({ id }) => id)
}

async function newest(): Promise<number> {
  const row = await db
    .selectFrom('snapshots')
    .select((eb) => eb.fn.max<number | null>('seq').as('seq'))
    .executeTakeFirst()
  return Number(row?.seq ?? 0)
}

describe('what is kept of a step', { timeout: BUSY_MS }, () => {
  /** A template of two steps that are kept, and where what is kept of each is. */
  async function built() {
    const name = newName()
    const since = await newest()
    const stages = [stage(run(`echo ${name} > one`), run('cat one one > two'))]
    expect((await build(name, stages)).state).toBe('ready')
    const [first = '', second = ''] = await results(since)
    const again = async () => {
      const done = await build(name, stages)
      expect([done.state, await read(name, '/app/two')], done.text).toEqual(['ready', `${name}\n${name}\n`])
      return done
    }
    return { again, first, second }
  }

  async function poison(id: string, path: string): Promise<void> {
    const snapshot = platform.host.snapshots.get(id)
    if (snapshot === undefined) throw new Error(`the host has no ${id}`)
    await writeFile(join(snapshot.capture.dir, path), 'poisoned\n')
  }

  it('is not used when it is not what was saved: the step is done again, from the one before it, and the log says so', async () => {
    const { again, second } = await built()
    await poison(second, 'app/two')
    const done = await again()
    expect(cached(done)).toBe(2)
    expect(done.text).toMatch(
      /What was kept of \[3\/3\] RUN .* cannot be used, and the step is done again: .* is damaged/,
    )
    const last = await again()
    expect([cached(last), last.text.includes('cannot be used')]).toEqual([3, false])
  })

  it('is not used beside one that is, and all from the first bad one on is done again', async () => {
    const { again, first, second } = await built()
    await poison(first, 'app/one')
    expect(cached(await again())).toBe(3)
    await poison(second, 'app/two')
    const done = await again()
    expect(cached(done)).toBe(0)
    expect(done.text).toContain('[2/3] RUN')
    expect(cached(await again())).toBe(3)
  })

  it('is done again when its host has it no more', async () => {
    const { again, second } = await built()
    platform.host.snapshots.delete(second)
    const done = await again()
    expect([cached(done), done.text]).toEqual([2, expect.stringContaining(`There is no snapshot ${second}`)])
    expect(cached(await again())).toBe(3)
  })

  it('is looked at in a template that another one begins with, which is refused when it has changed', async () => {
    const [name, other] = [newName(), newName()]
    expect((await build(name, [stage(run('echo 1 > one'))])).state).toBe('ready')
    const query = db.selectFrom('snapshots').select('id').where('name', '=', name).where('state', '=', 'ready')
    const stages = [{ from: name, steps: [run('cat one one > two')] }]
    await poison((await query.executeTakeFirstOrThrow()).id, 'app/one')
    const { state, text } = await build(other, stages)
    expect([state, text]).toEqual(['error', expect.stringContaining('is damaged')])
    expect(text).not.toContain('tried again')
  })

  it('stays when a host starts nothing for a while', async () => {
    const { again } = await built()
    const held = platform.host.faults.hold('create', 'before')
    const building = again()
    await held.reached
    held.release(new AppError('disk_full', 'The pool is full.'))
    const done = await building
    expect([cached(done), done.text]).toEqual([3, expect.stringContaining('It is tried again')])
    expect(done.text).not.toContain('cannot be used')
  })

  it('stays when nothing at all starts, whatever the host says of it', async () => {
    const { again } = await built()
    // From each of two results and from what the template begins with.
    for (let n = 0; n < 3; n++) {
      platform.host.faults.hold('create', 'before').release(new AppError('engine_failure', 'There is no engine.'))
    }
    const done = await again()
    expect([cached(done), done.text]).toEqual([3, expect.stringContaining('It is tried again')])
  })

  it('is used no more when nothing starts from it while something else does', async () => {
    const { again } = await built()
    platform.host.faults.hold('create', 'before').release(new AppError('engine_failure', 'It does not run.'))
    expect(cached(await again())).toBe(2)
    expect(cached(await again())).toBe(3)
  })

  it('is nothing of a capsule that went back to an earlier state while it was built', async () => {
    const name = newName()
    const flag = join(dir, 'go')
    const wait = `until [ -e ${flag} ]; do sleep 0.05; done`
    const begun = await begin(name, [stage(run('echo 1 > one'), run(`${wait}; cat one > two`))])
    await expect.poll(() => said(begun), { timeout: 20_000 }).toContain('[3/3]')
    const ofBuild = db.selectFrom('template_builds').select('capsule_id').where('id', '=', begun.id)
    const capsule = platform.host.capsules.get((await ofBuild.executeTakeFirstOrThrow()).capsule_id ?? '')
    if (capsule === undefined) throw new Error('the host has no capsule of the build')
    capsule.notice = 'It went back.'
    await writeFile(flag, '')
    const done = await ended(begun)
    expect([done.state, await read(name, '/app/two')]).toEqual(['ready', '1\n'])
    expect(done.text).toContain('is not what its steps made of it. It went back.')
  })
})

describe('what is kept of a stage for another', { timeout: BUSY_MS }, () => {
  const copies = { type: 'COPY', args: ['app/part', '/app/part'], stage: 0 }
  const stagesOf = (name: string, turn: number) => [
    stage(run(`echo ${name} > part`)),
    stage(run(`echo ${turn} > turn`), copies),
  ]
  it('is made again when it is not what was kept', async () => {
    const name = newName()
    expect((await build(name, stagesOf(name, 1))).state).toBe('ready')
    const names = (await readdir(dir, { recursive: true })).filter((one) => one.endsWith('.sealed'))
    expect(names).toHaveLength(1)
    for (const path of names.map((one) => join(dir, one))) {
      const content = await readFile(path)
      content[600] = (content[600] ?? 0) ^ 1
      await writeFile(path, content)
    }
    const done = await build(name, stagesOf(name, 2))
    expect([done.state, await read(name, '/app/part'), await read(name, '/app/turn')], done.text).toEqual([
      'ready',
      `${name}\n`,
      '2\n',
    ])
    expect(done.text).toContain('is damaged or gone, and is made again')
    const again = await build(name, stagesOf(name, 3))
    expect([again.state, again.text.includes('damaged')]).toEqual(['ready', false])
  })

  it('serves a build whose results cannot be used, however many there are', async () => {
    const name = newName()
    const since = await newest()
    const more = Array.from({ length: 6 }, (_, index) => run(`echo ${index} >> part`))
    const stages = [stage(run(`echo ${name} > part`)), stage(copies, ...more)]
    expect((await build(name, stages)).state).toBe('ready')
    for (const id of (await results(since)).slice(1)) platform.host.snapshots.delete(id)
    const done = await build(name, stages)
    const expected = [name, 0, 1, 2, 3, 4, 5, ''].join('\n')
    expect([done.state, await read(name, '/app/part')], done.text).toEqual(['ready', expected])
    expect([cached(done), done.text.match(/cannot be used/g)?.length]).toEqual([0, 7])
    expect(done.text).not.toContain('It is tried again')
  })
})
