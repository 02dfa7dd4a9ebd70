import { describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from '../harness/api.js'
import { engineOf } from '../harness/host.js'
import { Stream } from '../harness/stream.js'
import { eventually } from '../harness/wait.js'

const { api, platform } = usePlatform()
const UNREACHABLE = { status: 504, code: 'guest_unreachable', message: expect.stringContaining('cannot be reached') }
const TIMEOUT_SEC = 5

/** A command in the background that cuts the guest off after it was answered. `S`: seconds until it is given back. */
const faults = {
  'whose network is down': 'ip link set eth0 down; sleep $S; ip link set eth0 up',
  'whose answers are dropped': 'ip rule add blackhole pref 1; sleep $S; ip rule del pref 1',
  'whose agent is stopped': 'A=$(pgrep -of agent.mjs); kill -STOP $A; sleep $S; kill -CONT $A',
} as const

const cutOff = async (capsule: TestCapsule, fault: keyof typeof faults, seconds: number): Promise<void> => {
  await capsule.background(`S=${seconds}; sleep 1; ${faults[fault]}`, { tag: 'fault' })
}
const refusal = (capsule: TestCapsule, method: string, path: string, json?: object) =>
  api.refusal(method, `${capsule.path}${path}`, json === undefined ? {} : { json })
const sleeping = (sec: number, more: object = {}) => ({ cmd: 'sleep', args: [String(sec)], ...more })

// Beside each other: most of each is waiting.
const kinds = ['whose network is down', 'whose answers are dropped', 'whose agent is stopped'] as const
describe.concurrent.each(kinds)('a capsule %s', (fault) => {
  it('answers every call in time, can be paused, kept and rolled back, and is well again', async () => {
    await using capsule = await api.create({ memory_mb: 512 })
    await capsule.checkpoint('before')
    await cutOff(capsule, fault, 3_600)
    // This one finds out; the fault is there when it ends.
    expect(await refusal(capsule, 'POST', '/exec', sleeping(1_000, { timeout_sec: TIMEOUT_SEC }))).toMatchObject(
      UNREACHABLE,
    )
    const ends = await Promise.all([
      refusal(capsule, 'POST', '/exec', sleeping(1_000, { timeout_sec: TIMEOUT_SEC })),
      refusal(capsule, 'POST', '/exec', sleeping(1_000, { background: true })),
      refusal(capsule, 'GET', '/processes'),
      refusal(capsule, 'DELETE', '/processes/fault'),
      refusal(capsule, 'GET', '/files?path=/etc/passwd'),
      refusal(capsule, 'PUT', '/files?path=/tmp/x'),
      refusal(capsule, 'POST', '/files/list', { path: '/' }),
      refusal(capsule, 'POST', '/files/mkdir', { path: '/tmp/d' }),
      refusal(capsule, 'POST', '/files/remove', { path: '/tmp/d' }),
      refusal(capsule, 'GET', '/metrics'),
    ])
    expect(ends).toEqual(ends.map(() => expect.objectContaining(UNREACHABLE)))
    await capsule.checkpoint('cut-off')
    await capsule.pause()
    await capsule.resume()
    await capsule.rollback('before')
    expect(await capsule.text('echo well')).toBe('well')
  })

  it('goes on where it was when it is back', async () => {
    await using capsule = await api.create()
    await using stream = await Stream.start(platform, capsule, 'exec/stream', {
      cmd: '/bin/sh',
      args: ['-c', 'for i in $(seq 40); do echo line $i; sleep 0.5; done'],
    })
    const first = await stream.untilOutput('line 1\n')
    await cutOff(capsule, fault, 12)
    const { output } = await stream.untilExit()
    expect(first + output.toString()).toBe(Array.from({ length: 40 }, (_, index) => `line ${index + 1}\n`).join(''))
    expect(await capsule.text('echo well')).toBe('well')
  })
})

describe('a capsule whose clock is set', () => {
  it.each(['-1 year', '+1 year'])(
    'by %s ends its commands by their timeouts, no sooner and no later',
    async (change) => {
      await using capsule = await api.create()
      const set = await capsule.sh(`date -s "$(date -d '${change}')"; sleep 2; echo slept`, { timeout_sec: 60 })
      expect(set).toMatchObject({ timed_out: false, stdout: expect.stringContaining('slept') })
      const ended = await capsule.sh('sleep 1000', { timeout_sec: 3 })
      expect(ended).toMatchObject({ timed_out: true, exit_code: 124 })
      const { tag } = await capsule.background('sleep 1000', { timeout_sec: 600 })
      await capsule.untilRuns(tag)
      await capsule.pause()
      await capsule.resume()
      expect(await capsule.text('date +%Y')).toBe(String(new Date().getFullYear()))
      await capsule.untilRuns(tag)
    },
  )
})

describe('a capsule whose CPU is taken by 1,000 busy processes', () => {
  it('answers every call by its deadline, and can be rolled back', async () => {
    await using capsule = await api.create()
    await capsule.checkpoint('before')
    await capsule.background('i=0; while [ $i -lt 1000 ]; do (while :; do :; done) & i=$((i+1)); done; wait')
    const ended = await api.call('POST', `${capsule.path}/exec`, { json: sleeping(1_000, { timeout_sec: 10 }) })
    const body = ended.json<{ timed_out?: boolean; error?: { code: string } }>()
    expect(body.timed_out ?? body.error?.code).toSatisfy((end) => end === true || end === 'guest_unreachable')
    await capsule.rollback('before')
    expect(await capsule.text('echo well')).toBe('well')
  })
})

describe('a capsule whose memory is used up', () => {
  it('answers every call by its deadline, and works on when the program that took it is gone', async () => {
    await using capsule = await api.create()
    const hog = 'parts = []\nwhile True: parts.append(b"x" * 2**20)'
    const json = { cmd: 'python3', args: ['-c', hog], timeout_sec: 60 }
    const ended = await api.call('POST', `${capsule.path}/exec`, { json })
    expect(ended.json<{ exit_code: number }>()).toMatchObject({ exit_code: 137, timed_out: false })
    expect(await capsule.text('echo well')).toBe('well')
  })
})

describe('a capsule whose agent is killed again and again', () => {
  it('answers every call, and works on when that ends', async () => {
    await using capsule = await api.create()
    const kill = 'sleep 1; for i in $(seq 40); do pkill -9 -f agent.mjs; sleep 0.5; done'
    await capsule.background(`setsid sh -c '${kill}' >/dev/null 2>&1 &`)
    const json = sleeping(1_000, { timeout_sec: TIMEOUT_SEC })
    for (let round = 0; round < 3; round++) {
      const { status } = await api.call('POST', `${capsule.path}/exec`, { json })
      expect([200, 502, 504]).toContain(status)
    }
    await eventually('the agent to answer', async () => {
      const { status, bytes } = await api.call('POST', `${capsule.path}/exec`, {
        json: { cmd: 'echo', args: ['well'] },
      })
      return status === 200 && bytes.includes('well') ? true : undefined
    })
  })
})

describe('a capsule that is idle while its guest cannot be reached', () => {
  it('is paused as every idle one, and answers when it was resumed and its network is up', async () => {
    await using capsule = await api.create({ timeout_sec: 5 })
    // Not a command of ours, which would keep it awake.
    await capsule.text(`setsid sh -c 'S=20; sleep 1; ${faults['whose network is down']}' >/dev/null 2>&1 &`)
    await capsule.untilState('paused')
    await api.json('PATCH', capsule.path, { json: { timeout_sec: 0 } })
    await capsule.resume()
    await eventually('its network to be up', async () => {
      const { status } = await api.call('POST', `${capsule.path}/exec`, { json: { cmd: 'true' } })
      return status === 200 ? true : undefined
    })
  })
})

describe('an atomic command that takes the network down', () => {
  it('is answered and undone', async () => {
    await using capsule = await api.create()
    const json = { cmd: '/bin/sh', args: ['-c', 'touch /root/left; ip link set eth0 down; sleep 1000'] }
    const undone = await refusal(capsule, 'POST', '/exec', { ...json, atomic: true, timeout_sec: TIMEOUT_SEC })
    expect(undone).toMatchObject({ ...UNREACHABLE, message: expect.stringContaining('as it was before') })
    expect(await capsule.text('ls /root')).not.toContain('left')
  })
})

describe('a capsule whose virtual machine stands still', () => {
  it('answers calls that it cannot be reached, and goes on when it runs again', async () => {
    await using capsule = await api.create()
    const { pid } = await engineOf(platform.dir, capsule.id)
    process.kill(pid, 'SIGSTOP')
    try {
      expect(await refusal(capsule, 'POST', '/exec', sleeping(1_000, { timeout_sec: TIMEOUT_SEC }))).toMatchObject(
        UNREACHABLE,
      )
    } finally {
      process.kill(pid, 'SIGCONT')
    }
    expect(await capsule.text('echo well')).toBe('well')
  })
})
