// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of Dockerfiles
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { AppError, silentLogger } from '@wrenn/base'
import {
  type ErrorBody,
  readTemplateTail,
  TEMPLATE_ARCHIVE_TYPE,
  TEMPLATE_TAIL_BYTES,
  type TemplateBuild,
  type TemplateBuildFiles,
  type TemplateBuildLog,
} from '@wrenn/protocol'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from './store/database.js'
import { followBuild } from './testing/followed-build.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

const BUILDS = '/v1/templates/builds'
let dir: string
let platform: Platform
let db: Db

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-dockerfiles-'))
  platform = await startPlatform({ env: { WRENN_BUILD_FILES_DIR: dir, WRENN_ENCRYPTION_KEY: 'ab'.repeat(32) } })
  db = openDatabase({ url: platform.databaseUrl, logger: silentLogger })
}, 180_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
}, 30_000)

let count = 0
const newName = (): string => `docker-${count++}`
const run = (line: string, more: object = {}) => ({ type: 'RUN', args: [line], ...more })
const step = (type: string, ...args: string[]) => ({ type, args })
const stage = (...steps: object[]) => ({ from: 'base', steps: [step('WORKDIR', '/app'), ...steps] })

async function begin(name: string): Promise<TemplateBuild> {
  return await json<TemplateBuild>(await platform.call('POST', BUILDS, { name }), 201)
}

async function start({ id }: TemplateBuild, body: object): Promise<Response> {
  return await platform.call('POST', `${BUILDS}/${id}/start`, body)
}

async function log(id: string, query = ''): Promise<TemplateBuildLog> {
  return await json<TemplateBuildLog>(await platform.call('GET', `${BUILDS}/${id}/log${query}`), 200)
}

async function build(name: string, stages: readonly object[], more: object = {}) {
  const begun = await begin(name)
  await json(await start(begun, { stages, ...more }), 202)
  const done = await followBuild(platform, begun)
  return { ...done, text: done.messages.join('\n') }
}

async function upload({ id }: TemplateBuild, files: Readonly<Record<string, string>>) {
  const tree = await mkdtemp(join(tmpdir(), 'wrenn-test-pack-'))
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(tree, path)), { recursive: true })
    await writeFile(join(tree, path), content)
  }
  const tar = execFileSync('tar', ['-cf', '-', '-C', tree, '.'])
  await rm(tree, { recursive: true })
  const hash = createHash('sha256').update(JSON.stringify(files)).digest('hex')
  const link = await json<TemplateBuildFiles>(await platform.call('GET', `${BUILDS}/${id}/files/${hash}`), 200)
  expect((await fetch(link.upload_url, { method: 'PUT', body: new Uint8Array(tar) })).status).toBe(200)
  const told = Object.entries(files).map(([path, content]) => [path, content])
  return { type: 'COPY', args: ['.', './'], files_hash: hash, files: told }
}

async function read(template: string, path: string): Promise<string> {
  const { id } = await platform.create({ template })
  const answer = await platform.call('GET', `/v1/capsules/${id}/files?path=${encodeURIComponent(path)}`)
  const text = answer.status === 200 ? await answer.text() : `${answer.status}`
  await platform.call('DELETE', `/v1/capsules/${id}`)
  return text
}

async function refusal(response: Response, status: number): Promise<string> {
  return (await json<{ error: { message: string } }>(response, status)).error.message
}

it('begins with an image of a registry where there is no template of that name', async () => {
  const digest = `sha256:${'e'.repeat(64)}`
  platform.host.images.set('docker.io/library/alpine:3', { digest, env: ['COLOUR=red'] })
  const name = newName()
  const stages = [{ from: 'alpine:3', steps: [step('WORKDIR', '/app'), run('echo "$COLOUR" > said')] }]
  const { build: done, messages } = await build(name, stages)
  expect(done.state).toBe('ready')
  expect(messages).toContain('Asking for docker.io/library/alpine:3')
  expect(await read(name, '/app/said')).toBe('red\n')
  const copies = { type: 'COPY', args: ['app/said', '/said'], stage: 0 } as const
  const both = await build(newName(), [...stages, { from: 'alpine:3', steps: [copies] }])
  expect(both.messages.filter((message) => message.startsWith('Asking for'))).toHaveLength(1)
  const { build: failed, text } = await build(newName(), [{ from: 'alpine:4', steps: [] }])
  expect([failed.state, text]).toEqual(['error', expect.stringContaining('docker.io/library/alpine:4')])
  const { text: asked } = await build(newName(), [{ from: 'registry.example/web:default', steps: [] }])
  expect(asked).toContain('registry.example/web:default: there is no such image')
})

it('is told of from its beginning to its end, once for each state', async () => {
  const name = newName()
  const { build: done } = await build(name, [stage(run('echo hello'))])
  const query = db.selectFrom('events').select(['type', 'data']).where('resource_id', '=', done.id)
  const told = async () => (await query.orderBy('xid').orderBy('id').execute()).map(({ type, data }) => [type, data])
  const at = (state: string) => ({ name, state })
  expect(await told()).toEqual([
    ['build.created', at('draft')],
    ['build.state', at('waiting')],
    ['build.state', at('building')],
    ['build.updated', at('building')],
    ['build.state', at('ready')],
  ])
  await db.deleteFrom('template_builds').where('id', '=', done.id).execute()
  expect((await told()).at(-1)).toEqual(['build.removed', at('ready')])
})

describe('an image of a file', () => {
  /** Uploaded as a file by that content; the fake host knows what images it has. */
  async function file(begun: TemplateBuild, content: string, images: Readonly<Record<string, object>>) {
    const sha256 = createHash('sha256').update(content).digest('hex')
    platform.host.imageFiles.set(sha256, images as never)
    const hash = createHash('sha256').update(`called ${content}`).digest('hex')
    const link = await json<TemplateBuildFiles>(await platform.call('GET', `${BUILDS}/${begun.id}/files/${hash}`), 200)
    expect((await fetch(link.upload_url, { method: 'PUT', body: content })).status).toBe(200)
    return hash
  }
  const image = (digit: string, said: object = {}) => ({ digest: `sha256:${digit.repeat(64)}`, ...said })
  const built = async (name: string, content: string, images: Readonly<Record<string, object>>, chosen?: string) => {
    const begun = await begin(name)
    const files_hash = await file(begun, content, images)
    const image_files = { 'app.tar': { files_hash, ...(chosen === undefined ? {} : { image: chosen }) } }
    const stages = [{ from: 'app.tar', steps: [run('echo "$COLOUR" > said')] }]
    await json(await start(begun, { stages, image_files }), 202)
    const { build: done, messages } = await followBuild(platform, begun)
    return { done, text: messages.join('\n') }
  }

  it('is what a build begins with; the host takes the file once, by its bytes', async () => {
    const name = newName()
    const images = { 'app:1': image('1', { env: ['COLOUR=red'], workingDir: '/srv' }), 'app:2': image('2') }
    const { done, text } = await built(name, 'two images', images, 'app:1')
    expect([done.state, text]).toEqual(['ready', expect.stringContaining('Taking the file')])
    expect(await read(name, '/srv/said')).toBe('red\n')
    const again = await built(newName(), 'two images', images, 'app:1')
    expect(again.done.state).toBe('ready')
    expect(again.text).not.toContain('Taking the file')
    expect(again.text).toContain('CACHED')
  })

  it('is refused by what the file is called, where none is chosen or there is none', async () => {
    const images = { 'app:1': image('3'), 'app:2': image('4') }
    const { done, text } = await built(newName(), 'several', images)
    expect([done.state, done.reason?.step]).toEqual(['error', 'base'])
    expect(text).toContain('app.tar: it has 2 images, of which one is to be chosen: app:1, app:2')
    const none = await built(newName(), 'several', images, 'app:3')
    expect([none.done.state, none.text]).toEqual(['error', expect.stringContaining('it has no image app:3')])
    const empty = await built(newName(), 'no image', {})
    expect([empty.done.state, empty.text]).toEqual(['error', expect.stringContaining('neither of docker save')])
  })

  it('is one that was uploaded by the team, and that a stage begins with', async () => {
    const begun = await begin(newName())
    const stages = [{ from: 'app.tar', steps: [] }]
    const missing = { 'app.tar': { files_hash: 'f'.repeat(64) } }
    expect(await refusal(await start(begun, { stages, image_files: missing }), 400)).toContain('was not uploaded')
    const other = { 'other.tar': { files_hash: 'f'.repeat(64) } }
    expect(await refusal(await start(begun, { stages, image_files: other }), 400)).toContain(
      'no stage begins with other.tar',
    )
    const twice = { app: { files_hash: 'f'.repeat(64) }, 'app:default': { files_hash: 'e'.repeat(64) } }
    const app = [{ from: 'app', steps: [] }]
    expect(await refusal(await start(begun, { stages: app, image_files: twice }), 400)).toContain('app is there twice')
    for (const bad of [
      { files_hash: '../x' },
      { files_hash: 'f'.repeat(64), image: '' },
      {},
      { files_hash: 1, more: 2 },
    ]) {
      await refusal(await start(begun, { stages, image_files: { 'app.tar': bad } }), 400)
    }
    const many = Object.fromEntries(Array.from({ length: 51 }, (_, at) => [`f${at}`, { files_hash: 'f'.repeat(64) }]))
    await refusal(await start(begun, { stages, image_files: many }), 400)
    await platform.call('POST', `${BUILDS}/${begun.id}/cancel`)
  })

  it('is tried again when the host breaks off', async () => {
    const held = platform.host.faults.hold('fetch', 'before')
    const building = built(newName(), 'broken off', { only: image('5') })
    await held.reached
    held.release(new AppError('host_unavailable', 'The host is away.'))
    expect((await building).done.state).toBe('ready')
  })
})

describe('an archive of a template', () => {
  const archivePath = (name: string): string => `/v1/snapshots/${encodeURIComponent(name)}/archive`
  const archived = {
    setup: {
      user: 'root',
      cwd: '/tmp',
      envs: { COLOUR: 'red' },
      startCommand: 'echo started > started',
      readyCommand: '',
    },
    ...{ vcpus: 1, memoryMib: 256, diskSizeMib: 700, synced: false },
  }
  /** Imports what the fake host takes for an archive of that template. */
  async function imported(name: string, said: object, content = `archive of ${name}`) {
    const begun = await begin(name)
    const sha256 = createHash('sha256').update(content).digest('hex')
    const image = { digest: `file sha256:${sha256}`, archived: said }
    platform.host.imageFiles.set(sha256, { only: image } as never)
    const link = await json<TemplateBuildFiles>(
      await platform.call('GET', `${BUILDS}/${begun.id}/files/${sha256}`),
      200,
    )
    expect((await fetch(link.upload_url, { method: 'PUT', body: content })).status).toBe(200)
    const stages = [{ from: 'archive', steps: [] }]
    await json(await start(begun, { stages, image_files: { archive: { files_hash: sha256 } } }), 202)
    const { build: done, messages } = await followBuild(platform, begun)
    return { done, text: messages.join('\n') }
  }
  const sizesOf = async (name: string) =>
    await db
      .selectFrom('snapshots')
      .select(['vcpus', 'memory_mib', 'disk_size_mib', 'defaults'])
      .where('name', '=', name)
      .executeTakeFirstOrThrow()

  it('becomes a template as it was, whose start command runs again', async () => {
    const name = newName()
    const { done, text } = await imported(name, archived)
    expect([done.state, text]).toEqual(['ready', expect.stringContaining('Starting: echo started')])
    expect(text).toContain('What its programs had not written out when it was made may be missing.')
    expect(await sizesOf(name)).toEqual({
      ...{ vcpus: 1, memory_mib: 256, disk_size_mib: 700 },
      defaults: { user: 'root', cwd: '/tmp', envs: { COLOUR: 'red' }, startCmd: 'echo started > started' },
    })
    expect(await read(name, '/tmp/started')).toBe('started\n')
  })

  it('has all that is said of the template, and is in the audit trail', async () => {
    const name = newName()
    await imported(name, archived)
    const response = await platform.call('GET', archivePath(name))
    expect([response.status, response.headers.get('content-type')]).toEqual([200, TEMPLATE_ARCHIVE_TYPE])
    const bytes = Buffer.from(await response.arrayBuffer())
    expect(readTemplateTail(bytes.subarray(-TEMPLATE_TAIL_BYTES))).toMatchObject({ version: 1, name })
    expect(JSON.parse(bytes.subarray(0, -TEMPLATE_TAIL_BYTES).toString())).toMatchObject({
      ...{ user: 'root', cwd: '/tmp', envs: { COLOUR: 'red' } },
      startCommand: 'echo started > started',
    })
    const entry = db.selectFrom('audit_log').select('action').where('action', '=', 'template.export')
    expect(await entry.execute()).toHaveLength(1)
  })

  it('does not start again what runs already in a template that is built on', async () => {
    const name = newName()
    await imported(name, archived)
    const built = newName()
    const { text } = await build(built, [{ from: name, steps: [run('true')] }])
    expect(text).not.toContain('Starting:')
    expect((await sizesOf(built)).defaults).toMatchObject({ startCmd: 'echo started > started' })
  })

  it('that says what no template can have is refused with a sentence', async () => {
    for (const setup of [
      { ...archived.setup, user: 'a\0b' },
      { ...archived.setup, envs: { A: 'a\0b' } },
      { ...archived.setup, cwd: `/${'d'.repeat(5_000)}` },
    ]) {
      const { done, text } = await imported(newName(), { ...archived, setup }, JSON.stringify(setup))
      expect([done.state, text]).toEqual([
        'error',
        expect.stringMatching(/archive: its (?:user|envs|cwd)\S* is not usable/),
      ])
    }
  })

  it('is given of the own templates alone', async () => {
    expect((await platform.call('GET', archivePath('base'))).status).toBe(403)
    expect((await platform.call('GET', archivePath('none'))).status).toBe(404)
    expect((await platform.call('GET', archivePath('a\0b'))).status).toBeLessThan(500)
  })

  it('that breaks off is one that nobody takes for whole', async () => {
    const name = newName()
    await imported(name, archived)
    const held = platform.host.faults.hold('export', 'before')
    const response = await platform.call('GET', archivePath(name))
    expect(response.status).toBe(200)
    held.release(new AppError('engine_failure', 'tar failed'))
    await expect(response.arrayBuffer()).rejects.toThrow()
  })
})

it('begins as whom and where an image says, by what its own files have of that', async () => {
  const says = (at: number, said: object) =>
    platform.host.images.set(`docker.io/library/says:${at}`, { digest: `sha256:${String(at).repeat(64)}`, ...said })
  says(1, { user: '1000:50' })
  says(2, { user: 'app:staff' })
  says(3, { user: 'a\0b' })
  says(4, { workingDir: '/not/there' })
  const name = newName()
  const { build: done, text } = await build(name, [{ from: 'says:4', steps: [run('echo here > said')] }])
  expect([done.state, text]).toEqual(['ready', expect.stringContaining('FROM says:4')])
  expect(await read(name, '/not/there/said')).toBe('here\n')
  const numbered = newName()
  expect((await build(numbered, [{ from: 'says:1', steps: [] }])).build.state).toBe('ready')
  const row = db.selectFrom('snapshots').select('defaults').where('name', '=', numbered)
  expect((await row.executeTakeFirstOrThrow()).defaults).toMatchObject({ user: '1000:50', cwd: '/' })
  for (const [from, reason] of [
    ['says:2', 'says:2: there is no user app.'],
    ['says:3', 'docker.io/library/says:3: its user is not usable: must not contain a NUL byte.'],
  ] as const) {
    const { build: failed } = await build(newName(), [{ from, steps: [] }])
    expect(failed).toMatchObject({ state: 'error', reason: { step: 'base', message: reason } })
  }
})

describe('what a container of the image would run', () => {
  const prints = (word: string) => ['/bin/sh', '-c', `echo "${word} $0" > ran; exec sleep 100`]
  const from = (digit: string, said: object): string => {
    platform.host.images.set(`docker.io/library/runs:${digit}`, { digest: `sha256:${digit.repeat(64)}`, ...said })
    return `runs:${digit}`
  }
  const defaults = async (name: string) => {
    const query = db.selectFrom('snapshots').select('defaults').where('name', '=', name)
    return (await query.executeTakeFirstOrThrow()).defaults
  }
  const ran = async (image: string, said: object = {}) => {
    const name = newName()
    const { build: done, text } = await build(name, [{ from: image, steps: [] }], said)
    expect([done.state, text]).toEqual(['ready', expect.stringContaining('FROM')])
    return { text, name, startCmd: (await defaults(name))?.startCmd }
  }

  it('is started where nothing else is said', async () => {
    const { name, text, startCmd } = await ran(from('5', { entrypoint: prints('in'), command: ['arg'] }))
    expect(await read(name, '/ran')).toBe('in arg\n')
    expect(text).toContain('Starting, as the image says: exec /bin/sh -c')
    expect(startCmd).toMatch(/^exec \/bin\/sh .* arg$/)
  })

  it('is put together as containers have it', async () => {
    const image = from('6', { entrypoint: prints('in'), command: ['arg'] })
    expect(await read((await ran(image, { command: ['mine'] })).name, '/ran')).toBe('in mine\n')
    const own = await ran(image, { entrypoint: prints('own') })
    expect(await read(own.name, '/ran')).toMatch(/^own (?!arg)/)
    expect((await ran(image, { start_command: 'sleep 50' })).startCmd).toBe('sleep 50')
    expect((await ran(image, { entrypoint: [], command: [] })).startCmd).toBeUndefined()
  })

  it('is not what a template starts where it fails alone: it may be a shell, or want settings', async () => {
    const { text, startCmd } = await ran(from('7', { command: ['/bin/sh', '-c', 'echo wants settings; exit 3'] }))
    expect(text).toContain('wants settings')
    expect(text).toContain('The start command ended with exit code 3. Nothing runs in the template')
    expect(startCmd).toBeUndefined()
    const { build: failed } = await build(newName(), [{ from: 'runs:7', steps: [] }], { ready_command: 'false' })
    expect(failed.reason?.message).toBe('The start command ended with exit code 3.')
  })

  it('is waited for at the ports that it says', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    try {
      const { text } = await ran(from('9', { command: ['/bin/sh', '-c', 'exec sleep 100'], ports: [1, port] }))
      expect(text).toContain(`Waiting until somebody listens on port 1, ${port}.`)
      expect(text).not.toContain('Nobody listens')
    } finally {
      server.close()
    }
  })

  it('is left out where it cannot be that of a template', async () => {
    const { text, startCmd } = await ran(from('8', { command: ['a\0b'] }))
    expect(text).toContain("The image's entry point and command are left out")
    expect(startCmd).toBeUndefined()
  })

  it('is said in one of two ways', async () => {
    const begun = await begin(newName())
    const said = { stages: [{ from: 'base', steps: [] }], start_command: 'a', command: ['b'] }
    const refused = await json<ErrorBody>(await start(begun, said), 400)
    expect(refused.error.message).toBe('start_command: is not beside entrypoint and command.')
  })
})

describe('a build of several stages', () => {
  const stages = (word = 'one') => [
    stage(run(`mkdir out && echo ${word} > out/file && ln -s file out/link`), run('echo other > other')),
    stage(
      { type: 'COPY', args: ['app/out', '${TO:-into}/'], stage: 0 },
      { type: 'COPY', args: ['app/oth*', 'alone'], stage: 0 },
      step('ENV', 'A', '"1 $B"', 'PATH', '/opt/bin:$PATH'),
      { ...step('ENV', 'C', '${A}-${ARG}'), envs: { ARG: 'arg' } },
      run('echo "$C $ARG" > env; cat into/link > copied', { envs: { ARG: 'of run', A: 'not this' } }),
      run('argument', { shell: ['sh', '-c', 'echo "$0" > exec'] }),
    ),
  ]

  it('hands on files, words and variables as a Dockerfile does, and becomes a template', async () => {
    const name = newName()
    const { build: done, text, messages } = await build(name, stages())
    expect([done.state, text]).toEqual(['ready', expect.stringContaining('[10/10] RUN')])
    expect(messages.filter((message) => message === 'FROM base')).toHaveLength(2)
    expect(text).toMatch(/^DONE \[2\/10\] \d+\.\d s$/m)
    for (const [path, content] of [
      ['into/file', 'one\n'],
      ['alone', 'other\n'],
      ['env', '1 -arg of run\n'],
      ['copied', 'one\n'],
      ['exec', 'argument\n'],
    ]) {
      expect(await read(name, `/app/${path}`), path).toBe(content)
    }
    const again = await build(name, stages())
    // The first one is not looked at.
    expect(again.messages.filter((message) => message === 'FROM base')).toHaveLength(1)
    expect(again.messages.filter((message) => message.startsWith('CACHED'))).toHaveLength(7)
  })

  it('says why each step is done anew, and does what follows from a stage that changed', async () => {
    const name = newName()
    const first = await build(name, stages('first'))
    expect(first.text).not.toContain('changed')
    const changed = await build(name, stages('second'))
    expect(changed.text).toMatch(/\[2\/10\] RUN mkdir.* \(step changed\)/)
    expect(changed.text).toMatch(/\[3\/10\] RUN echo other.* \(a step before it changed\)/)
    expect(changed.text).toMatch(/\[5\/10\] COPY app\/out.* \(what it copies from changed\)/)
    expect(await read(name, '/app/copied')).toBe('second\n')
    const forced = await build(name, stages('second'), { no_cache: true })
    expect(forced.text).not.toContain('CACHED')
    expect(forced.text).toContain('(nothing kept is used)')
  })

  it('names the files that changed', async () => {
    const name = newName()
    const made = async (files: Readonly<Record<string, string>>) => {
      const begun = await begin(name)
      const copy = await upload(begun, files)
      await json(await start(begun, { stages: [stage(copy, run('cat a > seen'))] }), 202)
      return await followBuild(platform, begun)
    }
    await made({ a: '1', b: '1', c: '1' })
    const { messages, build: done } = await made({ a: '2', b: '1', d: '1' })
    expect(done.state).toBe('ready')
    expect(messages.join('\n')).toMatch(/\[2\/3\] COPY .* \(file a changed, d is new, c is gone\)/)
    expect(await read(name, '/app/seen')).toBe('2')
  })

  it('compares with the last build that became a template, not with one that failed', async () => {
    const name = newName()
    const one = run('echo one > file')
    expect((await build(name, [stage(one)])).build.state).toBe('ready')
    expect((await build(name, [stage(one, run('exit 3'))])).build.state).toBe('error')
    const { text } = await build(name, [stage(one, run('echo two'))])
    expect(text).toMatch(/\[3\/3\] RUN echo two \(new step\)/)
  })

  it('hands on a folder that has the place where files are gathered, or had it', async () => {
    const name = newName()
    const made = run('mkdir -p var/tmp/deep && echo kept > var/tmp/deep/file')
    const { build: done, text } = await build(name, [
      { from: 'base', steps: [made] },
      { from: 'base', steps: [{ type: 'COPY', args: ['var', '/copied/'], stage: 0 }] },
    ])
    expect([done.state, text]).toEqual(['ready', expect.stringContaining('DONE [2/2]')])
    expect(await read(name, '/copied/tmp/deep/file')).toBe('kept\n')
  })

  it('fails with the step of the stage that fails', async () => {
    const { build: done } = await build(newName(), [
      stage(run('echo why >&2; exit 7')),
      stage({ type: 'COPY', args: ['x', '.'], stage: 0 }),
    ])
    expect(done).toMatchObject({
      state: 'error',
      reason: { step: '2', message: expect.stringContaining('exit code 7') },
    })
    const missing = await build(newName(), [stage(), stage({ type: 'COPY', args: ['no/such', '.'], stage: 0 })])
    expect(missing.build.reason?.message).toContain('there is no /no/such in the stage')
  })
})

describe('secrets of a step', () => {
  it('are there while it runs, and in no log, plan or environment afterwards', async () => {
    const name = newName()
    const secret = 'correct-horse-battery'
    const steps = [
      run('echo "it is $TOKEN"; [ -n "$TOKEN" ] && echo given > given', { secrets: [{ id: 'token', env: 'TOKEN' }] }),
      run('echo "[${TOKEN:-}]" > later'),
    ]
    const begun = await begin(name)
    await json(await start(begun, { stages: [stage(...steps)], secrets: { token: secret } }), 202)
    const { build: done, messages } = await followBuild(platform, begun)
    expect([done.state, messages]).toEqual(['ready', expect.arrayContaining(['it is ***'])])
    expect(messages.join('\n')).not.toContain(secret)
    expect(await read(name, '/app/given')).toBe('given\n')
    expect(await read(name, '/app/later')).toBe('[]\n')
    // Another value makes no other step.
    const again = await build(name, [stage(...steps)], { secrets: { token: 'another one' } })
    expect(again.messages.filter((message) => message.startsWith('CACHED'))).toHaveLength(3)
  })

  it('are encrypted in what waits to be built', async () => {
    const secret = 'correct-horse-battery'
    const begun = await begin(newName())
    const steps = [run('sleep 60', { secrets: [{ id: 'token', env: 'TOKEN' }] })]
    await json(await start(begun, { stages: [stage(...steps)], secrets: { token: secret } }), 202)
    const { rows } = await sql<{ plan: string | null; all: string }>`
      SELECT plan::text AS plan, template_builds::text AS all FROM template_builds WHERE id = ${begun.id}`.execute(db)
    await platform.call('POST', `${BUILDS}/${begun.id}/cancel`)
    expect(rows[0]?.plan).toContain('"token"')
    expect(rows[0]?.all).not.toContain(secret)
  })

  it('are refused where a log could not hide them', async () => {
    const begun = await begin(newName())
    const twice = [
      { id: 'token', env: 'A' },
      { id: 'token', env: 'B' },
    ]
    const asked = (more: object, ...steps: object[]) => start(begun, { stages: [stage(...steps)], ...more })
    expect(await refusal(await asked({ secrets: { token: 'x' } }, run('x', { secrets: twice })), 400)).toContain(
      'stages.0.steps.1: RUN names the secret token twice',
    )
    const lines = (many: number) => Array.from({ length: many }, (_, index) => `line ${index}`).join('\n')
    const long = { a: lines(600), b: lines(401) }
    expect(await refusal(await asked({ secrets: long }), 400)).toContain('have 1001 lines')
    const many = Object.fromEntries(Array.from({ length: 51 }, (_, index) => [`s${index}`, 'x']))
    expect(await refusal(await asked({ secrets: many }), 400)).toContain('at most 50 entries')
    await platform.call('POST', `${BUILDS}/${begun.id}/cancel`)
  })

  it('must be given', async () => {
    const begun = await begin(newName())
    const body = { stages: [stage(run('x', { secrets: [{ id: 'none' }] }))] }
    expect(await refusal(await start(begun, body), 400)).toContain('stages.0.steps.1: RUN needs the secret none')
  })
})

describe('a build', () => {
  it('is listed, followed as it goes, and cancelled once', async () => {
    const name = newName()
    const begun = await begin(name)
    expect(begun).toMatchObject({ state: 'draft', name, log_lines: 0 })
    await json(await start(begun, { stages: [stage(run('echo begun; sleep 60'))] }), 202)
    await expect.poll(async () => (await log(begun.id)).lines.some(({ message }) => message === 'begun')).toBe(true)
    const { next } = await log(begun.id)
    const waiting = log(begun.id, `?from=${next}&wait_sec=20`)
    const cancelled = await json<TemplateBuild>(await platform.call('POST', `${BUILDS}/${begun.id}/cancel`), 200)
    expect(cancelled).toMatchObject({ state: 'cancelled', reason: { message: 'The build was cancelled.' } })
    expect((await waiting).build.state).toBe('cancelled')
    expect((await platform.call('POST', `${BUILDS}/${begun.id}/cancel`)).status).toBe(200)
    const listed = await json<TemplateBuild[]>(await platform.call('GET', `${BUILDS}?name=${name}`), 200)
    expect(listed.map(({ id, state }) => [id, state])).toEqual([[begun.id, 'cancelled']])
    expect(await refusal(await start(begun, { stages: [stage()] }), 409)).toContain('has ended')
  })

  it('says who began it, how many of its steps were kept, and in which line it failed', async () => {
    const name = newName()
    const begun = await begin(name)
    expect(begun).toMatchObject({ by: { type: 'key', name: expect.stringMatching(/./) } })
    expect(begun).not.toHaveProperty('steps')
    const lines = (...steps: object[]) => steps.map((each, index) => ({ ...each, line: index + 3 }))
    const kept = [run('echo one > one'), run('echo two > two')]
    await json(await start(begun, { stages: [stage(...lines(...kept))] }), 202)
    expect((await followBuild(platform, begun)).build).toMatchObject({ state: 'ready', steps: 3, cached_steps: 0 })
    // Where a step was written makes no other step of it.
    const { build: failed } = await build(name, [stage(...lines(step('WORKDIR', '/app'), ...kept, run('exit 3')))])
    expect(failed).toMatchObject({ state: 'error', steps: 5, reason: { step: '5', line: 6 } })
    const { build: again } = await build(name, [stage(...lines(...kept, run('exit 3')))])
    expect(again).toMatchObject({ state: 'error', steps: 4, cached_steps: 3, reason: { step: '4', line: 5 } })
    const missing = await build(newName(), [{ from: 'base', steps: lines(step('USER', 'nobody-at-all')) }])
    expect(missing.build.reason).toMatchObject({ step: '1', line: 3 })
  })

  it('is found by its state, and page after page', async () => {
    const name = newName()
    const begun: string[] = []
    for (let at = 0; at < 3; at++) begun.push((await begin(name)).id)
    await platform.call('POST', `${BUILDS}/${begun[1]}/cancel`)
    const ids = async (query: string) =>
      (await json<TemplateBuild[]>(await platform.call('GET', `${BUILDS}?name=${name}&${query}`), 200)).map(
        ({ id }) => id,
      )
    const [first = '', second = '', third = ''] = begun
    expect(await ids('state=open')).toEqual([third, first])
    expect(await ids('state=cancelled')).toEqual([second])
    expect(await ids('limit=2')).toEqual([third, second])
    expect(await ids(`limit=2&before=${second}`)).toEqual([first])
    expect(await ids(`before=${first}`)).toEqual([])
    expect(await ids(`before=bld-${'0'.repeat(25)}`)).toEqual([])
    expect((await platform.call('GET', `${BUILDS}?state=lost`)).status).toBe(400)
    expect((await platform.call('GET', `${BUILDS}?before=lost`)).status).toBe(400)
    for (const id of [first, third]) await platform.call('POST', `${BUILDS}/${id}/cancel`)
  })

  it('gives links for its own uploads, until it ends', async () => {
    const name = newName()
    const [first, second] = [await begin(name), await begin(name)]
    const linkOf = async ({ id }: TemplateBuild) =>
      await platform.call('GET', `${BUILDS}/${id}/files/${'1'.repeat(64)}`)
    const { upload_url: url } = await json<TemplateBuildFiles>(await linkOf(first), 200)
    expect(url).toContain(first.id)
    await platform.call('POST', `${BUILDS}/${first.id}/cancel`)
    expect((await fetch(url, { method: 'PUT', body: 'x' })).status).toBe(403)
    expect(await refusal(await linkOf(first), 409)).toContain('has ended')
    expect((await linkOf(second)).status).toBe(200)
    await platform.call('POST', `${BUILDS}/${second.id}/cancel`)
  })

  it('is refused by the step that makes no sense', async () => {
    const begun = await begin(newName())
    const say = async (...steps: object[]) =>
      await refusal(await start(begun, { stages: [{ from: 'base', steps }] }), 400)
    expect(await say(step('COPY', 'a', 'b'))).toContain('files_hash or stage')
    expect(await say({ ...step('COPY', 'a', 'b'), stage: 0 })).toContain('a stage before its own')
    expect(await say({ ...step('COPY', 'a', 'b'), files_hash: '0'.repeat(64) })).toContain('not uploaded')
    expect(await say(step('ENV', 'A'))).toContain('names without =')
    expect(await say(step('WORKDIR', ''))).toContain('needs a path')
    expect(await say({ ...step('USER', 'x'), shell: ['sh'] })).toContain('takes no shell')
    expect(await say({ ...run('x'), scratch: ['relative'] })).toContain('slash')
    const all = [stage(), { from: 'base', steps: [{ ...step('COPY', './', 'b'), stage: 0 }] }]
    expect(await refusal(await start(begun, { stages: all }), 400)).toContain('the name of a file or folder')
    expect(await refusal(await start(begun, { stages: [{ from: 'Nothing', steps: [] }] }), 404)).toContain('Nothing')
    expect(await refusal(await platform.call('GET', `${BUILDS}/bld-${'0'.repeat(25)}`), 404)).toContain(
      'There is no build',
    )
    await platform.call('POST', `${BUILDS}/${begun.id}/cancel`)
  })

  it('fails where a word of it does', async () => {
    const asked = (...steps: object[]) => build(newName(), [stage(...steps)])
    expect((await asked(step('ENV', 'A', '${B:?no B}'))).build.reason?.message).toContain('B is needed: no B')
    expect((await asked(step('USER', 'nobody-at-all'))).build.reason?.message).toContain(
      'there is no user nobody-at-all',
    )
    expect((await asked(step('WORKDIR', '$NONE'))).build.reason?.message).toContain('the path is empty')
  })
})
