import { readFile } from 'node:fs/promises'
import { AppError, capsuleIds, checkpointIds, snapshotIds } from '@wrenn/base'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { failure, TestCapsule } from '../conformance/host-client.js'
import { checkpoint, pause, resume, rollback, stateOf } from '../conformance/test-host.js'
import { startConnectedFake } from './connect-fake.js'
import type { FakeHost } from './fake-host.js'

describe('the hooks of the fake host', () => {
  let fake: Awaited<ReturnType<typeof startConnectedFake>>
  let host: FakeHost
  beforeAll(async () => {
    fake = await startConnectedFake()
    host = fake.host
  })
  afterAll(() => fake[Symbol.asyncDispose]())

  const create = async (): Promise<TestCapsule> => {
    const capsule = new TestCapsule(fake.client, capsuleIds.create())
    await fake.client.createCapsule({ capsuleId: capsule.id, template: 'minimal', vcpus: 1, memoryMib: 512 })
    return capsule
  }
  const forkTo = (source: TestCapsule, id: string) =>
    fake.client.forkCapsule({ capsuleId: source.id, copies: [{ capsuleId: id }] })
  const capsuleOf = async ({ id }: TestCapsule) => (await fake.client.getCapsule({ capsuleId: id })).capsule

  it('stop the processes of a paused capsule', async () => {
    const capsule = await create()
    // It starts no other process: one whose child is stopped before its exec waits in the kernel for it, and is not stopped.
    await capsule.launch('exec sleep 600', 'sleep')
    const pid = host.capsules.get(capsule.id)?.processes[0]?.pid
    const scheduling = async () => (await readFile(`/proc/${pid}/stat`, 'utf8')).split(' ')[2]
    await pause(capsule)
    await expect.poll(scheduling).toBe('T')
    await resume(capsule)
    await expect.poll(scheduling).toBe('S')
  })

  it('make the next operation fail with nothing done', async () => {
    const capsule = await create()
    await capsule.write('file', 'text')
    host.failNext('pause', new AppError('disk_full', 'The pool is full.'))
    expect(await failure(pause(capsule))).toBe('disk_full')
    expect(await capsule.read('file')).toBe('text')
    const point = await checkpoint(capsule)
    host.failNext('rollback')
    await capsule.write('file', 'changed')
    expect(await failure(rollback(capsule, point))).toBe('engine_failure')
    expect(await capsule.read('file')).toBe('changed')
    await pause(capsule)
    host.failNext('resume')
    expect(await failure(resume(capsule))).toBe('engine_failure')
    expect(await stateOf(capsule)).toBe('paused')
    const copy = capsuleIds.create()
    host.failNext('fork')
    expect(await failure(forkTo(capsule, copy))).toBe('engine_failure')
    expect(host.capsules.has(copy)).toBe(false)
    host.failNext('checkpoint')
    expect(await failure(checkpoint(capsule))).toBe('engine_failure')
    host.failNext('snapshot')
    const snapshotId = snapshotIds.create()
    expect(await failure(fake.client.createSnapshot({ capsuleId: capsule.id, snapshotId }))).toBe('engine_failure')
    expect(host.snapshots.has(snapshotId)).toBe(false)
  })

  it('make the next operation fail although it is done, so that asking again succeeds', async () => {
    const capsule = await create()
    const copy = new TestCapsule(fake.client, capsuleIds.create())
    host.failNext('fork', undefined, 'after')
    expect(await failure(forkTo(capsule, copy.id))).toBe('engine_failure')
    await copy.write('mark', 'kept')
    await forkTo(capsule, copy.id)
    expect(await copy.read('mark')).toBe('kept')
    const checkpointId = checkpointIds.create()
    host.failNext('checkpoint', undefined, 'after')
    expect(await failure(checkpoint(capsule, checkpointId))).toBe('engine_failure')
    expect((await checkpoint(capsule, checkpointId)).checkpointId).toBe(checkpointId)
  })

  it('hold an operation, which goes on without its caller and over a restart of the host', async () => {
    const capsule = await create()
    const held = host.holdNext('pause')
    const asked = failure(pause(capsule))
    await held.reached
    expect(await stateOf(capsule)).toBe('pausing')
    expect(await failure(capsule.tags())).toBe('invalid_state')
    await host.stop()
    expect(await asked).toBeDefined()
    held.release()
    await host.start()
    await expect.poll(() => host.capsules.get(capsule.id)?.state).toBe('paused')
    expect(await stateOf(capsule)).toBe('paused')
  })

  it('let a held operation fail', async () => {
    const capsule = await create()
    const held = host.holdNext('pause')
    const asked = failure(pause(capsule))
    await held.reached
    held.release(new AppError('guest_error', 'The guest does not stop.'))
    expect(await asked).toBe('guest_error')
    expect(await stateOf(capsule)).toBe('running')
  })

  it('pause a capsule with the reason of the host', async () => {
    const capsule = await create()
    await host.pauseByItself(capsule.id, 'memory_pressure')
    expect(await capsuleOf(capsule)).toMatchObject({ state: 'paused', pauseReason: 'memory_pressure' })
  })

  it('make what was saved durable: a guest that dies later goes on from there', async () => {
    const capsule = await create()
    await capsule.write('file', 'saved')
    const { checkpointId } = await checkpoint(capsule)
    expect(await pause(capsule)).toMatchObject({ durableAtMs: 0n })
    await host.makeDurable(capsule.id)
    expect((await capsuleOf(capsule))?.durableAtMs).toBeGreaterThan(0n)
    const { checkpoints } = await fake.client.listCheckpoints({ capsuleId: capsule.id })
    expect(checkpoints.find((one) => one.checkpointId === checkpointId)?.durableAtMs).toBeGreaterThan(0n)
    await resume(capsule)
    await capsule.write('file', 'lost')
    host.die(capsule.id, { cause: 'guest_panic', message: 'The kernel panicked.' })
    expect(await resume(capsule)).toMatchObject({ state: 'running', notice: expect.stringContaining('saved state') })
    expect(await capsule.read('file')).toBe('saved')
  })

  it('leave a guest ended that has nothing durable to go on from', async () => {
    const capsule = await create()
    await pause(capsule)
    await resume(capsule)
    host.die(capsule.id, { cause: 'guest_panic', message: 'The kernel panicked.' })
    expect(await failure(resume(capsule))).toBe('invalid_state')
  })

  it('say of a capsule what a test wants to be so', async () => {
    const capsule = await create()
    host.activity.set(capsule.id, { reasons: ['cpu'], cpuPct: 80, lastActiveAtMs: 5 })
    const { capsules } = await fake.client.getActivity({ capsuleIds: [capsule.id] })
    expect(capsules).toMatchObject([{ capsuleId: capsule.id, reasons: ['cpu'], cpuPct: 80, lastActiveAtMs: 5n }])
  })
})
