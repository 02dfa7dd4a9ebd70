import type { Capsule, Wrenn } from '@wrenn/sdk'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import { COUNT, expectComplete, STOP_FILE } from '../harness/counting.js'
import { loadSdk, openClient, type Sdk } from '../harness/sdk.js'
import { eventually } from '../harness/wait.js'

const { platform } = usePlatform()
let sdk: Sdk
let wrenn: Wrenn
let capsule: Capsule

beforeAll(async () => {
  sdk = await loadSdk(platform)
  wrenn = await openClient(platform)
  capsule = await wrenn.capsules.create({ name: 'sdk lifecycle', autoResume: false })
})
afterAll(async () => {
  await capsule?.destroy()
})

describe('the SDK', () => {
  it('pauses and resumes while it follows a process and waits for a command', async () => {
    const changes: string[] = []
    const stream = await capsule.stream(COUNT, { onConnection: (state) => changes.push(state) })
    const events = stream[Symbol.asyncIterator]()
    const read = async (): Promise<string> => {
      const { value } = await events.next()
      return value?.type === 'stdout' ? Buffer.from(value.data).toString() : ''
    }
    let text = await read()
    const command = capsule.exec(COUNT, { timeoutMs: 0 })
    const running = async () => ((await capsule.processes()).length === 2 ? true : undefined)
    await eventually('the command to run beside the stream', running)
    const paused = await capsule.pause()
    expect(paused).toMatchObject({ state: 'paused', pauseReason: 'request' })
    expect(paused.pausedAt).toBeInstanceOf(Date)
    await expect(capsule.exec('true')).rejects.toBeInstanceOf(sdk.InvalidStateError)
    expect(await capsule.resume()).toMatchObject({ state: 'running' })
    await capsule.exec(`touch ${STOP_FILE}`)
    while (stream.exit === undefined) text += await read()
    expectComplete(text)
    expectComplete((await command).stdout)
    expect(changes).not.toContain('lost')
  })

  it('changes the idle rules, and wakes what it uses', async () => {
    const changed = await capsule.update({ autoResume: true, idleTimeoutMs: 3_600_000, labels: { a: 'b' } })
    expect(changed).toMatchObject({ autoResume: true, timeoutMs: 3_600_000, labels: { a: 'b' } })
    expect(changed.pausesAt).toBeInstanceOf(Date)
    await capsule.ping()
    await capsule.pause()
    expect((await capsule.exec('echo awake')).stdout).toBe('awake\n')
    await capsule.pause()
    expect(await capsule.files.exists('/etc/passwd')).toBe(true)
    await capsule.pause()
    const pty = await capsule.pty({ command: ['/bin/sh', '-c', 'echo awake'] })
    expect(await pty.wait()).toMatchObject({ exitCode: 0 })
    expect((await capsule.refresh()).state).toBe('running')
  })

  it('forks', async () => {
    await capsule.exec('echo kept > /dev/shm/kept')
    const forks = await capsule.fork({ count: 2, name: 'sdk-fork', envs: { SEED: '7' }, labels: {} })
    try {
      expect(forks.pauseWindowMs).toBeGreaterThan(0)
      expect(forks.map(({ info }) => [info.name, info.parentId])).toEqual([
        ['sdk-fork-1', capsule.id],
        ['sdk-fork-2', capsule.id],
      ])
      const seen = await Promise.all(forks.map((copy) => copy.exec('cat /dev/shm/kept; echo $SEED; hostname')))
      expect(seen.map(({ stdout }) => stdout)).toEqual(forks.map(({ id }) => `kept\n7\n${id}\n`))
    } finally {
      await Promise.all(forks.map((copy) => copy.destroy()))
    }
  })

  it('makes checkpoints, compares them, goes back and deletes them', async () => {
    const before = await capsule.checkpoint('before')
    expect(before).toMatchObject({ name: 'before', current: true })
    await capsule.exec('echo x > "/srv/new file"; rm /etc/motd; echo changed > /dev/shm/kept')
    const changes: string[] = []
    for await (const { change, path } of capsule.diff('before')) changes.push(`${change} ${path}`)
    expect(changes).toEqual(['removed /etc/motd', 'added /srv/new file'])
    await using later = await capsule.stream('echo later; sleep 1000')
    const events = later[Symbol.asyncIterator]()
    expect((await events.next()).value).toMatchObject({ type: 'stdout' })
    const rolledBack = expect(events.next()).rejects.toMatchObject({ code: 'rolled_back' })
    expect(await capsule.rollback(before)).toMatchObject({ id: capsule.id, checkpointId: before.id })
    await rolledBack
    expect((await capsule.exec('cat /dev/shm/kept; ls /etc/motd')).stdout).toBe('kept\n/etc/motd\n')
    await capsule.deleteCheckpoint('before')
    expect(await capsule.checkpoints()).toEqual([])
    await expect(capsule.rollback('before')).rejects.toBeInstanceOf(sdk.CheckpointNotFoundError)
  })

  it('runs commands that happen wholly or not at all', async () => {
    const failed = await capsule.exec('echo x > /root/half; exit 4', { atomic: true })
    expect(failed).toMatchObject({ exitCode: 4, rolledBack: true })
    expect(await capsule.files.exists('/root/half')).toBe(false)
    expect(await capsule.exec('echo x > /root/whole', { atomic: true })).toMatchObject({ rolledBack: false })
    expect(await capsule.files.exists('/root/whole')).toBe(true)
  })

  it('makes templates of capsules and starts from them', async () => {
    const template = await capsule.snapshot('sdk-snapshot')
    expect(template).toMatchObject({ name: 'sdk-snapshot', type: 'snapshot' })
    try {
      await using copy = await wrenn.capsules.create({ template: template.name })
      expect((await copy.exec('cat /dev/shm/kept')).stdout).toBe('kept\n')
    } finally {
      await wrenn.templates.delete('sdk-snapshot')
    }
    await expect(wrenn.templates.delete('sdk-snapshot')).rejects.toBeInstanceOf(sdk.TemplateNotFoundError)
    await expect(wrenn.templates.delete('minimal')).rejects.toMatchObject({ code: 'forbidden' })
  })
})
