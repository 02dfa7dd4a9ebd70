import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { useCapsule, usePlatform } from '../harness/api.js'
import { type CommandResult, collect, spawnWrenn, wrenn } from '../harness/platform.js'
import { eventually } from '../harness/wait.js'

const { platform, api } = usePlatform()
const capsule = useCapsule()
let scratch: string

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'we2e-cli-'))
})
afterAll(async () => {
  await rm(scratch, { recursive: true, force: true })
})

const run = (...args: string[]): Promise<CommandResult> => wrenn(platform, args)
const capsules = async (): Promise<string[]> => (await api.list()).map(({ id }) => id)

describe('wrenn run', () => {
  it('gives output, errors and exit code of the command, and leaves no capsule', async () => {
    const before = await capsules()
    expect(await run('run', '--', 'sh', '-c', 'echo out; echo err >&2; exit 3')).toEqual({
      code: 3,
      stdout: 'out\n',
      stderr: 'err\n',
    })
    expect(await capsules()).toEqual(before)
  })

  it('pipes its input in and binary output out', async () => {
    const input = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 251))
    const child = spawnWrenn(platform, ['capsule', 'exec', capsule().id, '--', 'sha256sum'])
    const { stdout } = await collect(child, input)
    const { createHash } = await import('node:crypto')
    expect(stdout).toContain(createHash('sha256').update(input).digest('hex'))
  })

  it.each([
    ['137 after SIGKILL', ['sh', '-c', 'kill -9 $$'], 137],
    ['127 for an unknown command', ['no-such-program'], 127],
    ['124 after --timeout', ['sleep', '1000'], 124],
  ])('ends with %s', async (_, words, code) => {
    const flags = code === 124 ? ['--timeout', '1s'] : []
    const result = await run('capsule', 'exec', ...flags, capsule().id, '--', ...words)
    expect([result.code, result.stdout]).toEqual([code, ''])
    expect(result.stderr).toMatch(code === 124 ? /--timeout/ : code === 127 ? /not found/ : /^$/)
  })

  it('passes envs, directory, user and sizes on', async () => {
    const script = 'echo "$A $(pwd) $(id -un)"'
    const result = await run(
      'run',
      '-e',
      'A=1 2',
      '--cwd',
      '/srv',
      '--user',
      'user',
      '--name',
      'cli',
      '--',
      'sh',
      '-c',
      script,
    )
    expect(result).toEqual({ code: 0, stdout: '1 2 /srv user\n', stderr: '' })
  })

  it('writes one JSON event per line with --json', async () => {
    const { stdout, code } = await run('capsule', 'exec', '--json', capsule().id, '--', 'sh', '-c', 'printf hi; exit 2')
    const events: unknown[] = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(events[0]).toMatchObject({ type: 'stdout', data: Buffer.from('hi').toString('base64'), offset: 0 })
    expect(events.at(-1)).toMatchObject({ type: 'exit', exit_code: 2 })
    expect(code).toBe(2)
  })

  it('destroys its capsule when it is interrupted', async () => {
    const before = await capsules()
    const child = spawnWrenn(platform, ['run', '--', 'sh', '-c', 'echo going; sleep 1000'])
    const ended = collect(child, '')
    await new Promise<void>((resolve) => child.stdout?.once('data', () => resolve()))
    child.kill('SIGINT')
    expect((await ended).code).toBe(130)
    expect(await capsules()).toEqual(before)
  })
})

describe('wrenn capsule', () => {
  it('creates, lists, shows and removes', async () => {
    const created = await run('capsule', 'create', '--name', 'from cli', '--label', 'a=b', '--memory', '512m')
    expect(created).toMatchObject({ code: 0, stderr: '' })
    const id = created.stdout.trim()
    expect((await run('capsule', 'ls', '-q')).stdout.split('\n')).toContain(id)
    expect((await run('capsule', 'ls')).stdout).toMatch(new RegExp(`${id} +running +minimal .*from cli`))
    const info: unknown = JSON.parse((await run('capsule', 'info', '--json', id)).stdout)
    expect(info).toMatchObject({ id, state: 'running', name: 'from cli', labels: { a: 'b' }, memory_mb: 512 })
    expect(await run('capsule', 'rm', id)).toMatchObject({ code: 0, stdout: `${id}\n` })
    expect((await run('capsule', 'ls', '-q')).stdout).not.toContain(id)
  })

  it('runs in the background, shows logs and processes, and kills', async () => {
    const { stdout } = await run('capsule', 'exec', '-d', capsule().id, '--', 'sh', '-c', 'echo in the log; sleep 1000')
    const tag = stdout.trim()
    expect((await run('capsule', 'ps', capsule().id)).stdout).toMatch(new RegExp(`${tag} +running`))
    await eventually('the output to be logged', async () => {
      const logged = await run('capsule', 'logs', capsule().id, tag)
      return logged.stdout === 'in the log\n' ? true : undefined
    })
    expect((await run('capsule', 'kill', capsule().id, tag)).code).toBe(0)
    await eventually('it to be gone', async () =>
      (await run('capsule', 'ps', capsule().id)).stdout.includes(tag) ? undefined : true,
    )
  })

  it('copies files and directories in and out', async () => {
    const tree = join(scratch, 'tree')
    await mkdir(join(tree, 'sub dir'), { recursive: true })
    await writeFile(join(tree, 'one'), 'first')
    await writeFile(join(tree, 'sub dir', 'twö'), Buffer.alloc(2_000_000, 'x'))
    expect((await run('capsule', 'cp', '-r', tree, `${capsule().id}:/root`)).code).toBe(0)
    expect(await capsule().text("find /root/tree -type f -printf '%P %s\\n' | sort")).toBe('one 5\nsub dir/twö 2000000')
    const back = join(scratch, 'back')
    await mkdir(back)
    expect((await run('capsule', 'cp', '-r', `${capsule().id}:/root/tree`, back)).code).toBe(0)
    expect(await readFile(join(back, 'tree/one'), 'utf8')).toBe('first')
    expect((await stat(join(back, 'tree/sub dir/twö'))).size).toBe(2_000_000)
    expect(
      (await wrenn(platform, ['capsule', 'cp', '-', `${capsule().id}:/root/piped`], { input: 'piped in' })).code,
    ).toBe(0)
    expect((await run('capsule', 'cp', `${capsule().id}:/root/piped`, '-')).stdout).toBe('piped in')
  })

  it('says what is wrong, and how to go on', async () => {
    const missing = await run('capsule', 'info', `cl-${'0'.repeat(25)}`)
    expect(missing).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('capsule_not_found') })
    const wrongKey = await wrenn(platform, ['capsule', 'ls'], { env: { WRENN_API_KEY: 'wrong' } })
    expect(wrongKey).toMatchObject({ code: 1, stderr: expect.stringMatching(/unauthorized[\s\S]*api-key/) })
    const nowhere = await wrenn(platform, ['capsule', 'ls'], { env: { WRENN_API_URL: 'http://127.0.0.1:1' } })
    expect(nowhere).toMatchObject({ code: 1, stderr: expect.stringContaining('npm start') })
    const unknown = await run('capsule', 'fly')
    expect(unknown.code).not.toBe(0)
  })
})

describe('wrenn usage', () => {
  it('shows what was used, as a table, as JSON and as CSV, and checks it', async () => {
    expect(capsule().id).toMatch(/^cl-/)
    const used = JSON.parse((await run('usage', '--json')).stdout)
    expect(used.points.at(-1)).toMatchObject({ date: used.to, vcpu_seconds: expect.any(Number) })
    expect(used.total.vcpu_seconds).toBeGreaterThan(0)
    expect((await run('usage')).stdout).toMatch(/^DATE {2,}VCPU HOURS/)
    const month = used.to.slice(0, 7)
    expect((await run('usage', '--month', month, '--csv')).stdout).toMatch(/^date,cpu_minutes,.*\r\n.*\d\r\n$/s)
    expect((await run('usage', 'teams', '--months')).code).not.toBe(0)
    const teams = JSON.parse((await run('usage', 'teams', '--month', month, '--json')).stdout)
    expect(teams.teams[0].vcpu_seconds).toBeGreaterThan(0)
    const stats = JSON.parse((await run('usage', 'stats', '--range', '5m', '--json')).stdout)
    expect([stats.current.running_count, stats.steps.length]).toEqual([expect.any(Number), 100])
    expect((await run('usage', 'stats')).stdout).toMatch(/^Running {2,}\S.* now, at most [1-9]/m)
    const check = await run('usage', 'verify', '--all', '--json')
    expect([check.code, JSON.parse(check.stdout)]).toMatchObject([0, { ok: true, strays: [] }])
    const both = await run('usage', '--month', month, '--from', `${month}-01`)
    expect(both).toMatchObject({ code: 1, stderr: expect.stringContaining('--month says which days') })
    const lago = await run('usage', 'lago')
    expect(lago).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('WRENN_LAGO_URL is not set') })
  })
})

describe('the machine', () => {
  it('is examined by wrenn doctor', async () => {
    const { stdout, code } = await run('doctor', '--json')
    const report: { checks: { id: string; status: string }[] } = JSON.parse(stdout)
    expect(report.checks.length).toBeGreaterThan(5)
    expect(report.checks.filter(({ status }) => status === 'fail')).toEqual([])
    expect(report.checks.find(({ id }) => id === 'guest-kernel')?.status).toBe('ok')
    expect(code).toBe(0)
  })

  it('runs one platform per directory: a second wrenn up is refused and names the first', async () => {
    const second = await run('up', '--port', '0')
    expect(second).toMatchObject({ code: 1, stderr: expect.stringMatching(/conflict/) })
    expect(second.stderr).toContain(platform.dir)
    expect((await fetch(new URL('/ready', platform.url))).status).toBe(200)
    const clean = await run('clean', '--yes')
    expect(clean).toMatchObject({ code: 1, stderr: expect.stringContaining('wrenn down') })
  })

  it('lists its images, and which kernel they boot and why', async () => {
    const { stdout } = await run('image', 'ls', '--json')
    const kernel = {
      version: expect.stringMatching(/^\d+\.\d+\..*-amd64$/),
      preferred: true,
      reason: expect.any(String),
    }
    expect(JSON.parse(stdout)).toEqual([expect.objectContaining({ name: 'minimal', kernel })])
    expect((await run('image', 'ls')).stdout).toContain('Guest kernel ')
  })
})
