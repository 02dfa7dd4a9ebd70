import type { ExecRequest } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from '../harness/api.js'
import { engineOf } from '../harness/host.js'
import { eventually } from '../harness/wait.js'

const { api, platform } = usePlatform()
let capsule: TestCapsule

/** Everything that a migration touches: a file, a table, a process and what is in memory. */
const MIGRATE = [
  'echo half > /root/half',
  'echo changed > /dev/shm/memory',
  'rm /root/table',
  '(setsid sleep 777 > /dev/null 2>&1 &)',
  'echo migrating',
].join('; ')
const LOOK = 'cat /root/table /dev/shm/memory; ls /root/half 2>/dev/null; pgrep -f "[s]leep 777" | wc -l'

beforeAll(async () => {
  capsule = await api.create({ name: 'atomic' })
  await capsule.text('echo rows > /root/table; echo before > /dev/shm/memory')
})
afterAll(async () => {
  await capsule?.destroy()
})

const atomic = (line: string, options: Partial<ExecRequest> = {}) => capsule.sh(line, { atomic: true, ...options })

async function expectNoTrace(): Promise<void> {
  expect(await capsule.text(LOOK)).toBe('rows\nbefore\n0')
  expect(await capsule.checkpoints()).toEqual([])
}

describe('an atomic command', () => {
  it('leaves no trace in files, memory and processes when it fails', async () => {
    const result = await atomic(`${MIGRATE}; echo broken >&2; exit 3`)
    expect(result).toMatchObject({ exit_code: 3, stdout: 'migrating\n', stderr: 'broken\n', rolled_back: true })
    await expectNoTrace()
  })

  it('leaves no trace after its timeout', async () => {
    const result = await atomic(`${MIGRATE}; sleep 1000`, { timeout_sec: 3 })
    expect(result).toMatchObject({ exit_code: 124, timed_out: true, rolled_back: true })
    await expectNoTrace()
  })

  it('leaves no trace when it is killed', async () => {
    const killed = atomic(`${MIGRATE}; sleep 1000`, { tag: 'migration', timeout_sec: 600 })
    await eventually('the migration to run', async () => {
      const answer = await api.call('DELETE', `${capsule.path}/processes/migration`, { query: { signal: 'SIGKILL' } })
      return answer.status < 300 ? true : undefined
    })
    expect(await killed).toMatchObject({ exit_code: 137, signal: 9, rolled_back: true })
    await expectNoTrace()
  })

  it.each([
    ['panics', 'echo c > /proc/sysrq-trigger', /panicked/],
    ['is shut down', 'echo o > /proc/sysrq-trigger', /shut itself down/],
  ])('leaves no trace when the guest %s by it, and the capsule runs as before', async (_, end, message) => {
    const before = await capsule.text('cat /proc/sys/kernel/random/boot_id; hostname')
    const json = {
      cmd: '/bin/sh',
      args: ['-c', `${MIGRATE}; sync; ${end}; sleep 1000`],
      atomic: true,
      timeout_sec: 600,
    }
    const answer = await api.call('POST', `${capsule.path}/exec`, { json })
    expect(answer.status).toBe(502)
    expect(answer.json()).toMatchObject({
      error: { code: 'guest_died', message: expect.stringMatching(message), details: { rolled_back: true } },
    })
    const now = await capsule.get()
    expect([now.id, now.state, now.exit]).toEqual([capsule.id, 'running', undefined])
    await expectNoTrace()
    expect(await capsule.text('cat /proc/sys/kernel/random/boot_id; hostname')).toBe(before)
  })

  it('leaves no trace when its engine is killed on the host', async () => {
    const json = {
      cmd: '/bin/sh',
      args: ['-c', `${MIGRATE}; sleep 1000`],
      atomic: true,
      tag: 'victim',
      timeout_sec: 600,
    }
    const killed = api.call('POST', `${capsule.path}/exec`, { json })
    await capsule.untilRuns('victim')
    process.kill((await engineOf(platform.dir, capsule.id)).pid, 'SIGKILL')
    expect((await killed).json()).toMatchObject({ error: { code: 'guest_died', details: { rolled_back: true } } })
    await expectNoTrace()
  })

  it('runs alone, and to its end also when its caller has hung up', async () => {
    const hangUp = new AbortController()
    const json = { cmd: '/bin/sh', args: ['-c', `${MIGRATE}; sleep 2; exit 1`], atomic: true, tag: 'alone' }
    const left = api.call('POST', `${capsule.path}/exec`, { json, signal: hangUp.signal }).catch(() => 'left')
    await capsule.untilRuns('alone')
    const other = { json: { cmd: 'true', atomic: true } }
    expect(await api.refusal('POST', `${capsule.path}/exec`, other)).toMatchObject({ status: 409, code: 'in_use' })
    hangUp.abort()
    expect(await left).toBe('left')
    await eventually('another atomic command to be taken', async () => {
      const answer = await api.call('POST', `${capsule.path}/exec`, other)
      return answer.status === 200 ? true : undefined
    })
    await expectNoTrace()
  })

  it('keeps what it did when it succeeds', async () => {
    expect(await atomic(MIGRATE.replace('rm', 'cp /root/table /root/old; rm'))).toMatchObject({
      exit_code: 0,
      rolled_back: false,
    })
    const look = 'cat /root/old /dev/shm/memory /root/half; ls /root/table 2>/dev/null; pgrep -f "[s]leep 777" | wc -l'
    expect(await capsule.text(look)).toBe('rows\nchanged\nhalf\n1')
    expect(await capsule.checkpoints()).toEqual([])
  })

  it('is refused in the background', async () => {
    const json = { cmd: 'true', atomic: true, background: true }
    expect(await api.refusal('POST', `${capsule.path}/exec`, { json })).toMatchObject({
      status: 400,
      message: expect.stringMatching(/atomic/),
    })
  })
})
