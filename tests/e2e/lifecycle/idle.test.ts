import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Capsule } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from '../harness/api.js'
import { Stream } from '../harness/stream.js'
import { eventually } from '../harness/wait.js'

const { platform, api } = usePlatform()

describe('a capsule that nobody uses', () => {
  it('is paused after its timeout, says when and why, and is as it was afterwards', async () => {
    await using capsule = await api.create({ timeout_sec: 2 })
    expect(Date.parse(capsule.made.pauses_at ?? '')).toBeGreaterThan(Date.parse(capsule.made.created_at))
    await capsule.background('echo begun; sleep 1000', { tag: 'asleep' })
    const paused = await capsule.untilState('paused')
    expect(paused).toMatchObject({ pause_reason: 'idle', paused_at: expect.any(String), auto_resume: false })
    expect(paused.pauses_at).toBeUndefined()
    expect(await api.refusal('POST', `${capsule.path}/exec`, { json: { cmd: 'true' } })).toMatchObject({
      code: 'invalid_state',
    })
    await capsule.resume()
    expect(await capsule.text('pgrep -x sleep | wc -l')).toBe('1')
    await capsule.untilState('paused')
  })
})

describe('a capsule that is in use', () => {
  let capsule: TestCapsule
  beforeAll(async () => {
    capsule = await api.create({ timeout_sec: 1, auto_resume: true })
  })
  afterAll(async () => {
    await capsule?.destroy()
  })

  async function untilAwakeBecause(reason: NonNullable<Capsule['awake_because']>[number]): Promise<void> {
    const seen = await capsule.until(`kept awake by ${reason}`, (now) => now.awake_because?.includes(reason) ?? false)
    expect(seen.state).toBe('running')
  }
  const untilIdle = async (): Promise<void> => {
    expect(await capsule.untilState('paused')).toMatchObject({ pause_reason: 'idle' })
    expect((await capsule.get()).awake_because).toBeUndefined()
  }

  it('stays awake while a command runs in the foreground', async () => {
    const running = capsule.sh('until [ -e /tmp/go ]; do sleep 0.1; done; echo went', { timeout_sec: 0 })
    await untilAwakeBecause('process')
    await capsule.text('touch /tmp/go')
    expect((await running).stdout).toBe('went\n')
    await untilIdle()
  })

  it('stays awake while somebody has a terminal or a stream open', async () => {
    {
      await using pty = await Stream.start(platform, capsule, 'pty', { cmd: '/bin/sh', tag: 'terminal' })
      expect(await pty.next()).toMatchObject({ type: 'started' })
      await untilAwakeBecause('stream')
    }
    // The shell is still there, but nobody is.
    await untilIdle()
    await capsule.text('pgrep -x sh')
  })

  it('stays awake while it computes', async () => {
    const { pid } = await capsule.background('while :; do :; done')
    await untilAwakeBecause('cpu')
    await api.json('DELETE', `${capsule.path}/processes/${pid}`, { query: { signal: 'SIGKILL' } })
    await untilIdle()
  })
})

describe('the idle rules', () => {
  it('can be changed, and a ping starts the time anew', async () => {
    await using capsule = await api.create({ timeout_sec: 3600, name: 'before' })
    const first = Date.parse((await capsule.get()).pauses_at ?? '')
    await api.json('POST', `${capsule.path}/ping`)
    const pinged = await capsule.until('pinged', ({ pauses_at }) => Date.parse(pauses_at ?? '') > first)
    expect(pinged.state).toBe('running')
    const changes = { name: 'after', labels: { a: 'b' }, timeout_sec: 7200, auto_resume: true }
    const changed = await api.json<Capsule>('PATCH', capsule.path, { json: changes })
    expect(changed).toMatchObject(changes)
    expect(Date.parse(changed.pauses_at ?? '')).toBeGreaterThanOrEqual(first + 3_600_000)
    const never = await api.json<Capsule>('PATCH', capsule.path, { json: { timeout_sec: 0, name: null } })
    expect([never.pauses_at, never.name, never.labels]).toEqual([undefined, undefined, { a: 'b' }])
    const soon = await api.json<Capsule>('PATCH', capsule.path, { json: { timeout_sec: 1 } })
    expect(soon.timeout_sec).toBe(1)
    await capsule.untilState('paused')
    expect(await api.refusal('POST', `${capsule.path}/ping`)).toMatchObject({ status: 409, code: 'invalid_state' })
  })
})

describe('a paused capsule with auto_resume', () => {
  it('wakes for whatever is asked of it, once, however many ask', async () => {
    await using capsule = await api.create({ auto_resume: true })
    await capsule.text('echo kept > /root/kept')
    await capsule.pause()
    const resumesBefore = await resumesOf(capsule.id)
    const streams: Stream[] = []
    const follow = async (route: 'exec/stream' | 'pty'): Promise<string> => {
      const frame = { cmd: '/bin/sh', args: ['-c', 'cat /root/kept'] }
      const stream = await Stream.start(platform, capsule, route, frame)
      streams.push(stream)
      return (await stream.untilExit()).output.toString().trim()
    }
    const ways: (() => Promise<string>)[] = [
      () => capsule.text('cat /root/kept', { timeout_sec: 120 }),
      async () => (await capsule.read('/root/kept')).bytes.toString().trim(),
      async () => {
        await capsule.file('stat', { path: '/root/kept' })
        return 'kept'
      },
      () => follow('exec/stream'),
      () => follow('pty'),
    ]
    const all = Array.from({ length: 10 }, () => ways.map((way) => way()))
    const texts = await Promise.all(all.map(async (each) => await Promise.all(each)))
    expect(texts).toEqual(texts.map(() => ways.map(() => 'kept')))
    for (const stream of streams) await stream[Symbol.asyncDispose]()
    expect(await capsule.get()).toMatchObject({ state: 'running' })
    expect((await resumesOf(capsule.id)) - resumesBefore).toBe(1)
  })

  it('sleeps on when it is only looked at', async () => {
    await using capsule = await api.create({ auto_resume: true })
    await capsule.pause()
    expect((await api.list({ status: 'paused' })).map(({ id }) => id)).toContain(capsule.id)
    await capsule.checkpoints()
    await api.json('PATCH', capsule.path, { json: { labels: { looked: 'at' } } })
    expect(await capsule.get()).toMatchObject({ state: 'paused', labels: { looked: 'at' } })
  })
})

/** How often the host let a capsule run on, by its log. */
async function resumesOf(capsuleId: string): Promise<number> {
  const lines = await eventually('the log of the host agent', () =>
    readFile(join(platform.dir, 'logs', 'host-agent.log'), 'utf8').catch(() => undefined),
  )
  return lines.split('\n').filter((line) => line.includes('"capsule.resumed"') && line.includes(capsuleId)).length
}
