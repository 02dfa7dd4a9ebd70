import type { Capsule, Checkpoint, ForkResult, Template } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from '../harness/api.js'
import { COUNT, expectComplete, STOP_FILE } from '../harness/counting.js'
import { type CommandResult, collect, spawnWrenn, wrenn } from '../harness/platform.js'
import { Terminal } from '../harness/terminal.js'

const { platform, api } = usePlatform()
let capsule: TestCapsule

beforeAll(async () => {
  capsule = await api.create({ name: 'cli lifecycle' })
})
afterAll(async () => {
  await capsule?.destroy()
})

const run = (...args: string[]): Promise<CommandResult> => wrenn(platform, args)
/** What a command that must succeed says with --json. */
async function json<T>(...args: string[]): Promise<T> {
  const result = await run(...args, '--json')
  if (result.code !== 0) throw new Error(`wrenn ${args.join(' ')} ended with ${result.code}: ${result.stderr}`)
  return JSON.parse(result.stdout)
}

describe('wrenn capsule', () => {
  it('pauses and resumes; a command that runs goes on and loses nothing', async () => {
    const child = spawnWrenn(platform, ['capsule', 'exec', capsule.id, '--', 'sh', '-c', COUNT])
    const ended = collect(child, '')
    await new Promise((resolve) => child.stdout?.once('data', resolve))
    const paused = await run('capsule', 'pause', capsule.id)
    expect(paused).toMatchObject({ code: 0, stdout: expect.stringMatching(/^Paused in .* \(.*total .*\)\.\n$/) })
    expect((await run('capsule', 'info', capsule.id)).stdout).toMatch(/state +paused .* because somebody asked for it/)
    expect((await run('capsule', 'ls')).stdout).toMatch(new RegExp(`${capsule.id} +paused`))
    const again = await run('capsule', 'pause', capsule.id)
    expect(again).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/paused.*invalid_state/s) })
    expect(await json<Capsule>('capsule', 'resume', capsule.id)).toMatchObject({ id: capsule.id, state: 'running' })
    await capsule.text(`touch ${STOP_FILE}`)
    expectComplete((await ended).stdout)
    expect((await ended).code).toBe(0)
  })

  it('forks', async () => {
    await capsule.text('echo kept > /dev/shm/kept')
    const one = await run('capsule', 'fork', capsule.id)
    expect(one).toMatchObject({ code: 0, stderr: expect.stringMatching(/stood still for/) })
    const words = ['--count', '2', '--name', 'cli-fork', '--label', 'by=cli', '-e', 'SEED=7']
    const many = await json<ForkResult>('capsule', 'fork', capsule.id, ...words)
    const ids = [one.stdout.trim(), ...many.capsules.map(({ id }) => id)]
    expect(many.capsules.map(({ name, labels }) => [name, labels])).toEqual([
      ['cli-fork-1', { by: 'cli' }],
      ['cli-fork-2', { by: 'cli' }],
    ])
    const seen = await run('capsule', 'exec', ids[1] ?? '', '--', 'sh', '-c', 'cat /dev/shm/kept; echo $SEED')
    expect(seen.stdout).toBe('kept\n7\n')
    expect((await run('capsule', 'rm', ...ids)).code).toBe(0)
  })

  it('makes checkpoints, shows them as a tree, compares them, goes back and removes them', async () => {
    const first = await run('capsule', 'checkpoint', 'create', capsule.id, 'first')
    expect(first).toMatchObject({ code: 0, stdout: expect.stringMatching(/^cp-[0-9a-z]{25}\n$/) })
    await capsule.text('echo x > "/srv/a file"; rm /etc/motd; chmod 600 /etc/hostname')
    await run('capsule', 'checkpoint', 'create', capsule.id, 'second')
    const tree = (await run('capsule', 'checkpoint', 'ls', capsule.id)).stdout.split('\n')
    expect(tree[0]).toMatch(/^ {2}NAME +SIZE +AGE +SAVED +ID$/)
    expect(tree[1]).toMatch(/^ {2}first /)
    expect(tree[2]).toMatch(/^\* └ second /)
    const changes = ['D /etc/motd', 'A /srv/a file']
    expect((await run('capsule', 'diff', capsule.id, 'first')).stdout.split('\n')).toEqual(
      expect.arrayContaining(changes),
    )
    const only = await json<{ changes: object[] }>('capsule', 'diff', capsule.id, 'first', 'second', '--path', '/srv')
    expect(only.changes).toMatchObject([{ change: 'added', path: '/srv/a file', type: 'file', size: 2 }])
    const back = await run('capsule', 'rollback', capsule.id, 'first')
    expect(back).toMatchObject({ code: 0, stdout: expect.stringMatching(/^Back at first after /) })
    expect(await capsule.text('ls /etc/motd /srv')).toBe('/etc/motd\n\n/srv:')
    expect(await run('capsule', 'checkpoint', 'rm', capsule.id, 'first', 'second')).toMatchObject({
      code: 0,
      stdout: 'first\nsecond\n',
    })
    expect(await json<Checkpoint[]>('capsule', 'checkpoint', 'ls', capsule.id)).toEqual([])
    const missing = await run('capsule', 'rollback', capsule.id, 'first')
    expect(missing).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/checkpoint_not_found[\s\S]*checkpoint ls/),
    })
  })

  it('goes back also when the guest has ended, and undoes an atomic command that ended it', async () => {
    const panic = ['sh', '-c', 'touch /root/half; echo c > /proc/sysrq-trigger; sleep 1000']
    const undone = await run('capsule', 'exec', '--atomic', capsule.id, '--', ...panic)
    expect(undone.code).toBe(1)
    expect(undone.stderr).toMatch(/panicked.*as it was before the command.*guest_died/s)
    expect(await capsule.text('ls /root')).not.toContain('half')
    await run('capsule', 'checkpoint', 'create', capsule.id, 'good')
    await run('capsule', 'exec', capsule.id, '--', ...panic)
    await capsule.untilState('error')
    const back = await run('capsule', 'rollback', capsule.id, 'good')
    expect(back).toMatchObject({ code: 0, stdout: expect.stringMatching(/^Back at good after /) })
    expect(await capsule.text('ls /root')).not.toContain('half')
    expect((await run('capsule', 'checkpoint', 'rm', capsule.id, 'good')).code).toBe(0)
  })

  it('runs a command atomically, and says that nothing happened when it failed', async () => {
    const failed = await run('capsule', 'exec', '--atomic', capsule.id, '--', 'sh', '-c', 'echo x > /root/half; exit 6')
    expect(failed).toEqual({ code: 6, stdout: '', stderr: expect.stringMatching(/as it was before/) })
    expect(await capsule.text('ls /root/half 2>/dev/null || echo none')).toBe('none')
    expect(await run('capsule', 'exec', '--atomic', capsule.id, '--', 'echo', 'done')).toEqual({
      code: 0,
      stdout: 'done\n',
      stderr: '',
    })
  })

  it('makes a template, which starts warm', async () => {
    expect(await run('capsule', 'snapshot', capsule.id, 'cli-tools')).toMatchObject({ code: 0, stdout: 'cli-tools\n' })
    expect((await run('snapshot', 'ls')).stdout).toMatch(/^NAME[^\n]*\ncli-tools /)
    expect(await json<Template[]>('snapshot', 'ls', '--all')).toMatchObject([
      { name: 'minimal', type: 'base' },
      { name: 'code-interpreter', type: 'base' },
      { name: 'cli-tools', type: 'snapshot' },
    ])
    const id = (await run('capsule', 'create', '--template', 'cli-tools')).stdout.trim()
    expect((await run('capsule', 'exec', id, '--', 'cat', '/dev/shm/kept')).stdout).toBe('kept\n')
    expect((await run('capsule', 'rm', id)).code).toBe(0)
    expect((await run('snapshot', 'rm', 'cli-tools')).code).toBe(0)
    expect(await run('snapshot', 'rm', 'minimal')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/built-in.*forbidden/),
    })
  })

  it('allows and denies by name, and shows what was refused', async () => {
    const only = ['--no-internet', '--allow', 'Example.org', '--allow', '*.example.net']
    const policy = { internet: false, allow: ['example.org', '*.example.net'], deny: [] }
    const set = ['capsule', 'egress', 'set', capsule.id]
    expect(await json('capsule', 'egress', 'set', capsule.id, ...only)).toEqual({ policy, in_force: true })
    await capsule.sh('getent hosts elsewhere.example')
    const refusal = { name: 'elsewhere.example', port: 53, reason: 'not_allowed' }
    expect(await json('capsule', 'egress', 'get', capsule.id)).toMatchObject({
      ...{ policy, in_force: true },
      refused: expect.arrayContaining([expect.objectContaining(refusal)]),
    })
    expect((await run('capsule', 'egress', 'get', capsule.id)).stdout).toMatch(/elsewhere\.example:53 +not_allowed/)
    const wrong = await run(...set, '--deny', '*')
    expect(wrong).toMatchObject({ code: 1, stderr: expect.stringContaining('a wildcard stands alone') })
    expect((await run(...set)).code).toBe(0)
  })

  it('learns what is used, and proposes a policy of it', async () => {
    const wrong = await run('egress', 'learn', capsule.id)
    expect(wrong).toMatchObject({ code: 1, stderr: expect.stringContaining(`wrenn egress set ${capsule.id} --learn`) })
    await json('egress', 'set', capsule.id, '--learn')
    // Nobody answers there; that it was asked is enough for a datagram.
    await capsule.sh(
      `python3 -c 'import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b"hello", ("198.51.100.7", 9))'`,
    )
    const proposal = { internet: false, allow: ['198.51.100.7'], deny: [] }
    const destinations = [{ protocol: 'udp', address: '198.51.100.7', port: 9, count: 1 }]
    expect(await json('egress', 'learn', capsule.id)).toEqual({ proposal, complete: true, destinations })
    const { stdout, stderr } = await run('egress', 'learn', capsule.id, '--apply')
    expect(stdout).toBe(`${JSON.stringify(proposal)}\n--no-internet --allow 198.51.100.7\n`)
    expect(stderr).toContain('It is in force.')
    const status = await json<object>('egress', 'get', capsule.id)
    expect(status).toMatchObject({ policy: proposal, in_force: true })
    expect(status).not.toHaveProperty('learned')
    expect((await run('egress', 'set', capsule.id)).code).toBe(0)
  })

  it('changes the idle rules', async () => {
    const updated = await json<Capsule>('capsule', 'update', capsule.id, '--timeout', '30m', '--name', 'renamed')
    expect(updated).toMatchObject({ timeout_sec: 1800, name: 'renamed', auto_resume: false })
    expect((await run('capsule', 'info', capsule.id)).stdout).toMatch(/will pause in (29|30) min/)
    await run('capsule', 'update', capsule.id, '--timeout', '0', '--auto-resume')
    expect(await capsule.get()).toMatchObject({ timeout_sec: 0, auto_resume: true })
  })
})

describe('wrenn shell', () => {
  it('waits while its capsule is paused, and goes on where it was', async () => {
    await api.json('PATCH', capsule.path, { json: { auto_resume: false } })
    const terminal = Terminal.shell(platform, capsule.id, '--', '/bin/sh')
    terminal.type('kept=value-$((40 + 2)); echo set-$kept\r')
    await terminal.shows('set-value-42')
    await capsule.pause()
    await terminal.shows(/paused/)
    await capsule.resume()
    terminal.type('echo "is $kept"\r')
    await terminal.shows('is value-42')
    terminal.type('exit 9\r')
    expect(await terminal.ended).toBe(9)
  })
})
