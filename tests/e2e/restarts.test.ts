import type { ChildProcess } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import type { Wrenn } from '@wrenn/sdk'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from './harness/api.js'
import { COUNT, expectComplete, STOP_FILE } from './harness/counting.js'
import { engineOf } from './harness/host.js'
import { killAllButGuests, killAndAwait, untilReady } from './harness/kill.js'
import { collect, type Platform, pidsOf, spawnWrenn, up, wrenn } from './harness/platform.js'
import { openClient } from './harness/sdk.js'
import { endOf, type Frame, outputOf, Stream } from './harness/stream.js'
import { eventually } from './harness/wait.js'

const { platform, api } = usePlatform()
let sdk: Wrenn
let capsule: TestCapsule

beforeAll(async () => {
  sdk = await openClient(platform)
  capsule = await api.create({ name: 'restarts' })
})
afterAll(async () => {
  await capsule?.destroy()
})
beforeEach(async () => {
  await capsule.text(`rm -f ${STOP_FILE}`)
})

/** The SDK's stream of a process, read to its end; `seen` tells when it has begun. */
async function follow(tag: string): Promise<{ readonly seen: Promise<void>; readonly text: Promise<string> }> {
  const stream = await sdk.capsules.get(capsule.id).then((one) => one.stream(COUNT, { tag }))
  let begun = (): void => {}
  const seen = new Promise<void>((resolve) => {
    begun = resolve
  })
  const read = async (): Promise<string> => {
    let text = ''
    for await (const event of stream) {
      if (event.type === 'lost') throw new Error('Output was lost.')
      if (event.type === 'stdout') text += Buffer.from(event.data).toString()
      if (text.includes('line 5\n')) begun()
    }
    return text
  }
  return { seen, text: read() }
}

async function finish(): Promise<void> {
  await capsule.text(`touch ${STOP_FILE}`)
}

describe('when the host agent is killed', () => {
  it('capsules and commands go on, and every follower gets all of the output', async () => {
    const engine = await engineOf(platform.dir, capsule.id)
    const sdkFollower = await follow('agent-sdk')
    const cli = spawnWrenn(platform, ['capsule', 'exec', capsule.id, '--', 'sh', '-c', COUNT])
    const cliEnd = collect(cli, '')
    await using socket = await Stream.start(platform, capsule, 'exec/stream', { cmd: '/bin/sh', args: ['-c', COUNT] })
    const foreground = capsule.sh(COUNT, { timeout_sec: 0 })
    await Promise.all([sdkFollower.seen, new Promise((resolve) => cli.stdout?.once('data', resolve))])
    const began = await socket.untilOutput('line 5\n')
    await killAndAwait(platform, 'host-agent')
    await eventually('the capsule to answer again', async () => {
      const answer = await api.call('POST', `${capsule.path}/exec`, { json: { cmd: 'true' } })
      return answer.status === 200 ? true : undefined
    })
    await finish()
    expectComplete(await sdkFollower.text)
    expect(await cliEnd).toMatchObject({ code: 0, stderr: '' })
    expectComplete((await cliEnd).stdout)
    expectComplete((await foreground).stdout)
    expectComplete(began + (await socket.untilExit()).output.toString())
    expect((await engineOf(platform.dir, capsule.id)).pid).toBe(engine.pid)
    expect(await capsule.get()).toMatchObject({ state: 'running' })
    await using another = await api.create()
    expect(await another.text('echo new')).toBe('new')
  })
})

describe('when the control plane is killed', () => {
  it('commands go on, and SDK, CLI and REST take up their output where it broke', async () => {
    const sdkFollower = await follow('plane-sdk')
    const cli = spawnWrenn(platform, ['capsule', 'exec', capsule.id, '--', 'sh', '-c', COUNT])
    const cliEnd = collect(cli, '')
    const frames: Frame[] = []
    const tag = 'plane-rest'
    await using socket = await Stream.start(platform, capsule, 'exec/stream', {
      cmd: '/bin/sh',
      args: ['-c', COUNT],
      tag,
    })
    frames.push(...(await socket.until((frame) => outputOf([frame]).includes('line 5\n'))))
    await Promise.all([sdkFollower.seen, new Promise((resolve) => cli.stdout?.once('data', resolve))])
    await killAndAwait(platform, 'control-plane')
    for (let frame = await socket.next(); frame !== undefined; frame = await socket.next()) frames.push(frame)
    await finish()
    const from = endOf(frames)
    await using again = await Stream.open(platform, `${capsule.path}/processes/${tag}/stream?from_offset=${from}`)
    expectComplete(outputOf(frames).toString() + (await again.untilExit()).output.toString())
    expectComplete(await sdkFollower.text)
    expectComplete((await cliEnd).stdout)
    expect((await cliEnd).code).toBe(0)
    expect(await capsule.get()).toMatchObject({ state: 'running' })
  })
})

describe('the control plane', () => {
  it('has no rights on its machine: no user of its, no groups, no capabilities, no way to them', async () => {
    const { 'control-plane': pid } = await pidsOf(platform)
    const status = await readFile(`/proc/${pid}/status`, 'utf8')
    const uid = Number(platform.env.WRENN_UID_BASE) + 2
    expect(status).toMatch(new RegExp(`^Uid:(\\s+${uid}){4}$`, 'm'))
    expect(status).toMatch(new RegExp(`^Gid:(\\s+${uid}){4}$`, 'm'))
    expect(status).toMatch(/^Groups:\s*$/m)
    for (const set of ['Prm', 'Eff', 'Amb']) expect(status).toMatch(new RegExp(`^Cap${set}:\\s+0+$`, 'm'))
    expect(status).toMatch(/^NoNewPrivs:\s+1$/m)
  })
})

describe('when the database is killed', () => {
  it('it is started again and knows everything that was acknowledged', async () => {
    const label = { label: `kept=${crypto.randomUUID()}` }
    await using kept = await api.create({ labels: { kept: label.label.slice('kept='.length) } })
    const path = `${platform.dir}/postgres/data/postmaster.pid`
    const pid = Number((await readFile(path, 'utf8')).split('\n')[0])
    process.kill(pid, 'SIGKILL')
    await eventually('another database', async () => {
      const now = Number((await readFile(path, 'utf8').catch(() => '')).split('\n')[0])
      return now > 0 && now !== pid ? now : undefined
    })
    await eventually('the API to know its capsules', async () => {
      const answer = await api.call('GET', '/v1/capsules', { query: label })
      return answer.status === 200 ? true : undefined
    })
    expect((await api.list(label)).map(({ id }) => id)).toEqual([kept.id])
    expect(await kept.text('echo alive')).toBe('alive')
  })
})

describe('when wrenn up is stopped and started again', () => {
  it('capsules have run on: their memory, processes, output and files are as they were', async () => {
    const engine = await engineOf(platform.dir, capsule.id)
    const { tag } = await capsule.background(COUNT)
    await capsule.text('echo "on disk" > /root/kept; head -c 5000000 /dev/urandom > /dev/shm/nonce')
    const nonce = await capsule.text('sha256sum /dev/shm/nonce')
    await using before = await Stream.open(platform, `${capsule.path}/processes/${tag}/stream?from_offset=0`)
    await before.untilOutput('line 5\n')
    expect((await wrenn(platform, ['down'])).code).toBe(0)
    await before.closed
    expect((await engineOf(platform.dir, capsule.id)).pid).toBe(engine.pid)
    await up(platform)
    expect(await capsule.untilState('running')).toMatchObject({ host_id: expect.stringMatching(/./) })
    await finish()
    expect(await capsule.text('cat /root/kept; sha256sum /dev/shm/nonce')).toBe(`on disk\n${nonce}`)
    await using after = await Stream.open(platform, `${capsule.path}/processes/${tag}/stream?from_offset=0`)
    expectComplete((await after.untilExit()).output.toString())
    expect((await engineOf(platform.dir, capsule.id)).pid).toBe(engine.pid)
  })
})

describe('when everything but the guests is killed', () => {
  /** Moments at which a start is killed that follows a kill; none: only the running platform is. */
  const moments: readonly { readonly when: string; readonly reached?: (names: readonly string[]) => boolean }[] = [
    { when: 'while it runs' },
    { when: 'as it has just taken its directory', reached: () => true },
    { when: 'as it starts its services', reached: (names) => names.includes('host-agent') },
    { when: 'as it starts the last of them', reached: (names) => names.includes('control-plane') },
  ]

  it.each(moments)('a start at once succeeds, $when, and capsules have run on', async ({ reached }) => {
    const engine = await engineOf(platform.dir, capsule.id)
    const name = `killed-${crypto.randomUUID()}`
    await api.json('PATCH', capsule.path, { json: { name } })
    await killAllButGuests(platform)
    if (reached !== undefined) {
      const { supervisor } = await recordOf(platform)
      const started = spawnUp()
      await eventually('the start to get so far', async () => {
        const now = await recordOf(platform)
        if (now.supervisor === supervisor) return undefined
        return reached(now.children) ? true : undefined
      })
      await killAllButGuests(platform)
      await collect(started, '')
    }
    await up(platform)
    expect((await engineOf(platform.dir, capsule.id)).pid).toBe(engine.pid)
    expect(await capsule.untilState('running')).toMatchObject({ name })
    expect(await capsule.text('echo alive')).toBe('alive')
  })

  it('a `wrenn down` says what it has ended of it, and the next that nothing runs', async () => {
    const { supervisor, pids } = await recordOf(platform)
    // Its children end by themselves when it is killed, and may have done so before anybody looks; this one cannot.
    process.kill(pids['host-agent'] ?? 0, 'SIGSTOP')
    process.kill(supervisor, 'SIGKILL')
    const downs = [await wrenn(platform, ['down']), await wrenn(platform, ['down'])]
    await up(platform)
    expect(downs.map(({ code, stdout }) => [code, stdout])).toEqual([
      [0, expect.stringContaining('a killed `wrenn up` had left')],
      [0, expect.stringContaining('Nothing runs')],
    ])
  })
})

describe('when more than one wrenn up starts', () => {
  it('one of two that start at the same moment runs, and each other is told so', async () => {
    expect((await wrenn(platform, ['down'])).code).toBe(0)
    const both = [spawnUp(), spawnUp()].map((child) => collect(child, ''))
    const loser = await Promise.race(both)
    expect(loser.code).not.toBe(0)
    expect(loser.stderr).toContain('"code":"conflict"')
    await untilReady(platform)
    const late = await collect(spawnUp(), '')
    expect(late.code).not.toBe(0)
    expect(late.stderr).toContain(`Wrenn is running in ${platform.dir} already`)
    const downs = await Promise.all([1, 2].map(() => wrenn(platform, ['down'])))
    expect(downs.map(({ code }) => code)).toEqual([0, 0])
    expect((await Promise.all(both)).map(({ code }) => code).filter((code) => code === 0)).toHaveLength(1)
    await up(platform)
    expect(await capsule.text('echo alive')).toBe('alive')
  })
})

function spawnUp(): ChildProcess {
  return spawnWrenn(platform, ['up', '--port', String(platform.port), '--json'])
}

interface UpRecord {
  readonly supervisor: number
  /** Names of its children. */
  readonly children: readonly string[]
  readonly pids: Readonly<Record<string, number>>
}

/** What `wrenn up` has written down of itself. */
async function recordOf({ dir }: Platform): Promise<UpRecord> {
  const record: { supervisor: { pid: number }; children: { name: string; pid: number }[] } = JSON.parse(
    await readFile(`${dir}/run/up.json`, 'utf8'),
  )
  return {
    supervisor: record.supervisor.pid,
    children: record.children.map(({ name }) => name),
    pids: Object.fromEntries(record.children.map(({ name, pid }) => [name, pid])),
  }
}
