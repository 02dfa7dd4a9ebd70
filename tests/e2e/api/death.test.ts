import { describe, expect, it } from 'vitest'
import { type TestCapsule, useCapsule, usePlatform } from '../harness/api.js'
import { capsuleTraces, engineOf } from '../harness/host.js'
import { Stream } from '../harness/stream.js'
import { eventually } from '../harness/wait.js'

const { api, platform } = usePlatform()
const bystander = useCapsule()

async function expectGone(capsule: TestCapsule): Promise<void> {
  const refused = { status: 502, code: 'guest_died' }
  expect(await api.refusal('POST', `${capsule.path}/exec`, { json: { cmd: 'true' } })).toMatchObject(refused)
  expect(await api.refusal('GET', `${capsule.path}/files?path=/etc/passwd`)).toMatchObject(refused)
  expect(await bystander().text('echo fine')).toBe('fine')
}

describe('a guest whose process is killed on the host', () => {
  it('is in error with the cause, tells everyone who waits, and leaves the others alone', async () => {
    await using capsule = await api.create()
    await using stream = await Stream.start(platform, capsule, 'exec/stream', {
      cmd: '/bin/sh',
      args: ['-c', 'echo running; sleep 1000'],
    })
    await stream.untilOutput('running')
    const waiting = api.refusal('POST', `${capsule.path}/exec`, {
      json: { cmd: 'sleep', args: ['1000'], timeout_sec: 600 },
    })
    await capsule.text('until pgrep -x sleep | sed -n 2p | grep -q .; do sleep 0.05; done')
    process.kill((await engineOf(platform.dir, capsule.id)).pid, 'SIGKILL')
    expect(await waiting).toMatchObject({
      status: 502,
      code: 'guest_died',
      message: expect.stringContaining('SIGKILL'),
    })
    expect((await stream.until(({ type }) => type === 'error')).at(-1)).toMatchObject({
      code: 'guest_died',
      fatal: true,
    })
    const ended = await capsule.untilState('error')
    expect(ended).toMatchObject({
      status: 'error',
      exit: { cause: 'killed', signal: 'SIGKILL', message: expect.stringContaining('SIGKILL') },
    })
    await expectGone(capsule)
    expect((await api.list({ status: 'error' })).map(({ id }) => id)).toContain(capsule.id)
    await capsule.destroy()
    expect((await capsule.get()).state).toBe('stopped')
    await eventually('nothing to be left of it', async () => {
      const traces = await capsuleTraces(platform)
      return JSON.stringify(traces).includes(capsule.id) ? undefined : true
    })
  })
})

describe('a guest that ends by itself', () => {
  it.each([
    ['powers itself off', 'echo o > /proc/sysrq-trigger', 'guest_shutdown', /shut itself down/],
    ['panics', 'echo c > /proc/sysrq-trigger', 'guest_panic', /panicked.*sysrq/],
    ['reboots', 'echo b > /proc/sysrq-trigger', 'guest_reset', /restarted/],
  ])('is in error when it %s, and its record says so', async (_, line, cause, message) => {
    await using capsule = await api.create()
    await capsule.endBy(line)
    const ended = await capsule.untilState('error')
    expect(ended.exit).toMatchObject({ cause, message: expect.stringMatching(message) })
    await expectGone(capsule)
  })
})

describe('a program that takes all memory', () => {
  it('is killed alone, and its result says why', async () => {
    const program = 'held = []\nwhile True: held.append(b"x" * (16 << 20))'
    await using capsule = await api.create()
    await capsule.background('echo alive; sleep 1000', { tag: 'other' })
    const result = await capsule.exec('python3', ['-c', program], { timeout_sec: 120 })
    expect(result).toMatchObject({ exit_code: 137, signal: 9, oom_killed: true, timed_out: false })
    expect(await capsule.text('echo still here')).toBe('still here')
    expect((await capsule.get()).state).toBe('running')
    await using other = await Stream.open(platform, `${capsule.path}/processes/other/stream?from_offset=0`)
    expect(await other.untilOutput('alive')).toBe('alive\n')
  })
})
