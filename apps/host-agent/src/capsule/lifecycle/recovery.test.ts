import { truncate } from 'node:fs/promises'
import { checkpointIds } from '@wrenn/base'
import type { CapsuleState } from '@wrenn/protocol'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { input, nothing, TestMachine } from '../../testing/test-machine.js'

let test: TestMachine
beforeEach(async () => {
  test = await TestMachine.create()
})
afterEach(async () => {
  await test[Symbol.asyncDispose]()
})

interface Case {
  /** What the journal says. */
  readonly state: CapsuleState
  /** A complete state is in the capsule's directory. */
  readonly manifest: boolean
  readonly guest: 'alive' | 'dead'
  readonly becomes: CapsuleState | 'gone'
}

const cases: readonly Case[] = [
  { state: 'starting', manifest: false, guest: 'alive', becomes: 'gone' },
  { state: 'starting', manifest: false, guest: 'dead', becomes: 'gone' },
  { state: 'running', manifest: false, guest: 'alive', becomes: 'running' },
  { state: 'running', manifest: false, guest: 'dead', becomes: 'error' },
  { state: 'pausing', manifest: false, guest: 'alive', becomes: 'running' },
  { state: 'pausing', manifest: false, guest: 'dead', becomes: 'error' },
  { state: 'pausing', manifest: true, guest: 'alive', becomes: 'paused' },
  { state: 'pausing', manifest: true, guest: 'dead', becomes: 'paused' },
  { state: 'paused', manifest: true, guest: 'alive', becomes: 'paused' },
  { state: 'paused', manifest: true, guest: 'dead', becomes: 'paused' },
  { state: 'paused', manifest: false, guest: 'dead', becomes: 'error' },
  { state: 'resuming', manifest: true, guest: 'alive', becomes: 'paused' },
  { state: 'resuming', manifest: true, guest: 'dead', becomes: 'paused' },
  { state: 'resuming', manifest: false, guest: 'alive', becomes: 'running' },
  { state: 'resuming', manifest: false, guest: 'dead', becomes: 'error' },
  { state: 'stopping', manifest: false, guest: 'alive', becomes: 'gone' },
  { state: 'stopping', manifest: true, guest: 'dead', becomes: 'gone' },
  { state: 'error', manifest: false, guest: 'dead', becomes: 'error' },
]

/** A capsule whose host agent went down with this in the journal, on the disk and on the machine. */
async function downWith({ state, manifest, guest }: Omit<Case, 'becomes'>) {
  const { manager, hotPool, journal } = await test.start()
  const { capsuleId } = await manager.create(input())
  await hotPool.close()
  const running = manager.get(capsuleId)
  if (running === undefined) throw new Error('The capsule was just made.')
  const vm = test.guestOf(running)
  await vm.writeRam({ nonce: 'kept' })
  vm.state = state === 'running' ? 'running' : 'paused'
  await manager.detach()
  if (manifest) {
    const { context } = manager
    const dir = `capsules/${capsuleId}/0`
    await test.saveState(context.states.files(dir).statePath)
    await context.states.commit(dir, test.manifestOf(running))
  }
  if (guest === 'dead') vm.end('killed')
  await journal.put({ ...running, state })
  return { capsuleId, vm }
}

describe('a host agent that starts again', () => {
  for (const one of cases) {
    const { state, manifest, guest, becomes } = one
    const what = `${state}, ${manifest ? 'with' : 'without'} a saved state, its guest ${guest}`
    it(`makes a capsule that was ${what}, ${becomes}`, async () => {
      const { capsuleId, vm } = await downWith(one)
      const { manager } = await test.start()
      const record = manager.get(capsuleId)
      expect(record?.state ?? 'gone').toBe(becomes)
      expect(vm.exit === undefined).toBe(becomes === 'running')
      if (becomes === 'running') {
        expect(vm.state).toBe('running')
        expect((await manager.running(capsuleId)).resources.vmId).toBe(record?.resources?.vmId)
      } else expect(record?.resources).toBeUndefined()
      if (becomes === 'paused') {
        await manager.resume(capsuleId)
        expect(await test.guestOf(manager.get(capsuleId) ?? { resources: undefined }).readRam()).toEqual({
          nonce: 'kept',
        })
      }
      await manager.destroyAll()
      expect(await test.leftovers()).toEqual(nothing)
    })
  }

  it('says of a guest that it did not see end that it ended while nobody looked', async () => {
    const { capsuleId } = await downWith({ state: 'running', manifest: false, guest: 'dead' })
    const { manager } = await test.start()
    expect(manager.get(capsuleId)?.exit?.message).toContain('while its host agent was not running')
  })

  it('finishes a fork whose first copy runs, and drops one whose first copy does not', async () => {
    const { manager, hotPool, journal } = await test.start()
    const made = await Promise.all([1, 2, 3, 4].map(async () => await manager.create(input())))
    const [leader, copy, unborn, orphan] = made
    if (!leader || !copy || !unborn || !orphan) throw new Error('Four capsules were made.')
    await hotPool.close()
    await manager.detach()
    await journal.put({ ...copy, state: 'starting', leader: leader.capsuleId })
    for (const each of [unborn, orphan]) await journal.put({ ...each, state: 'starting', leader: unborn.capsuleId })
    const after = await test.start()
    expect(after.manager.list().map(({ capsuleId, state }) => [capsuleId, state])).toEqual(
      expect.arrayContaining([
        [leader.capsuleId, 'running'],
        [copy.capsuleId, 'running'],
      ]),
    )
    expect(after.manager.list()).toHaveLength(2)
    await after.manager.destroy(leader.capsuleId)
    await after.manager.detach()
    const last = await test.start()
    expect(last.manager.list().map(({ capsuleId }) => capsuleId)).toEqual([copy.capsuleId])
    await last.manager.destroyAll()
    expect(await test.leftovers()).toEqual(nothing)
  })

  it('gives back the second guest of a rollback and lets the one it switched to run', async () => {
    const { manager, hotPool, journal } = await test.start()
    const [record, other] = [await manager.create(input()), await manager.create(input())]
    await hotPool.close()
    const [current, second] = [test.guestOf(record), test.guestOf(other)]
    await manager.detach()
    current.state = 'paused'
    await journal.put({ ...record, other: other.resources })
    await journal.remove(other.capsuleId)
    const after = await test.start()
    expect(after.manager.list()).toMatchObject([{ capsuleId: record.capsuleId, state: 'running', other: undefined }])
    expect(current).toMatchObject({ state: 'running', exit: undefined })
    expect(second.exit?.cause).toBe('killed')
  })

  it('lets a capsule run that a rollback had taken out of its end, and gives back the guest of one that had not', async () => {
    const { manager, hotPool, journal } = await test.start()
    const [switched, prepared] = [await manager.create(input()), await manager.create(input())]
    await hotPool.close()
    const [current, next] = [test.guestOf(switched), test.guestOf(prepared)]
    await manager.detach()
    for (const vm of [current, next]) vm.state = 'paused'
    const exit = { cause: 'guest_panic', message: 'It panicked.', atMs: 1, consoleTail: '' } as const
    const ended = { exit: { ...exit, exitCode: undefined, signal: undefined } }
    await journal.put({ ...switched, ...ended, state: 'resuming', reviving: true })
    const { resources: other } = prepared
    await journal.put({ ...prepared, ...ended, state: 'error', resources: undefined, other })
    const after = await test.start()
    expect(after.manager.get(switched.capsuleId)).toMatchObject({ state: 'running', exit: undefined })
    expect(current).toMatchObject({ state: 'running', exit: undefined })
    expect(after.manager.get(prepared.capsuleId)).toMatchObject({ state: 'error', exit, other: undefined })
    expect(next.exit?.cause).toBe('killed')
  })

  it('notices that a capsule that was about to go on after its end has ended again', async () => {
    const { capsuleId } = await downWith({ state: 'resuming', manifest: false, guest: 'dead' })
    const { journal } = await test.start()
    const exit = { cause: 'guest_panic', message: 'Earlier.', atMs: 1, consoleTail: '' } as const
    const [record] = await journal.open()
    if (record === undefined) throw new Error('The journal has the capsule.')
    await journal.put({ ...record, state: 'resuming', exit: { ...exit, exitCode: undefined, signal: undefined } })
    const { manager } = await test.start()
    expect(manager.get(capsuleId)).toMatchObject({ state: 'error', exit: { cause: 'unknown' } })
  })

  it('keeps the others when one record cannot be taken up', async () => {
    const good = await downWith({ state: 'running', manifest: false, guest: 'alive' })
    const bad = await downWith({ state: 'paused', manifest: true, guest: 'dead' })
    await test.damage(`capsules/${bad.capsuleId}/0/manifest.json`, 'nonsense')
    const { manager } = await test.start()
    expect(manager.get(good.capsuleId)?.state).toBe('running')
    await expect(manager.resume(bad.capsuleId)).rejects.toMatchObject({ code: 'snapshot_damaged' })
  })
})

describe('after the host itself went down', () => {
  it('a capsule that ran goes back to its newest durable state and says so', async () => {
    const { manager, hotPool } = await test.start()
    const { capsuleId } = await manager.create(input())
    await hotPool.close()
    await test.guestOf(manager.get(capsuleId) ?? { resources: undefined }).writeRam({ nonce: 'durable' })
    await manager.pause(capsuleId, 'request')
    await test.until(() => manager.get(capsuleId)?.durableAtMs)
    await manager.resume(capsuleId)
    await test.guestOf(manager.get(capsuleId) ?? { resources: undefined }).writeRam({ nonce: 'newer' })
    await manager.detach()
    await test.powerOff()
    const after = await test.start('boot-2')
    expect(after.manager.get(capsuleId)).toMatchObject({
      ...{ state: 'paused', pauseReason: 'host_restart', bootId: 'boot-2' },
      notice: expect.stringContaining('because its host restarted'),
    })
    await after.manager.resume(capsuleId)
    const guest = test.guestOf(after.manager.get(capsuleId) ?? { resources: undefined })
    expect(await guest.readRam()).toEqual({ nonce: 'durable' })
    await after.manager.destroyAll()
    expect(await test.leftovers()).toEqual(nothing)
  })

  describe('a capsule with a pause, a checkpoint and another one after it goes back to', () => {
    const cases = [
      { damaged: [], to: 'second checkpoint' },
      { damaged: ['second'], to: 'first checkpoint' },
      { damaged: ['second', 'first'], to: 'pause' },
    ] as const
    it.each(cases)('the $to, with $damaged damaged', async ({ damaged, to }) => {
      const ids = { first: checkpointIds.create(), second: checkpointIds.create() }
      const { manager, hotPool } = await test.start()
      const { capsuleId } = await manager.create(input())
      await hotPool.close()
      const remember = async (nonce: string) =>
        await test.guestOf(manager.get(capsuleId) ?? { resources: undefined }).writeRam({ nonce })
      const { states } = manager.context
      await remember('pause')
      await manager.pause(capsuleId, 'request')
      await test.until(() => manager.get(capsuleId)?.durableAtMs)
      await manager.resume(capsuleId)
      for (const name of ['first', 'second'] as const) {
        await remember(`${name} checkpoint`)
        await manager.points.create(capsuleId, ids[name])
        await test.until(async () => await states.durable(`capsules/${capsuleId}/checkpoints/${ids[name]}`))
      }
      await remember('newer')
      await manager.detach()
      await test.powerOff()
      for (const name of damaged) {
        await truncate(states.files(`capsules/${capsuleId}/checkpoints/${ids[name]}`).memoryPath, 1)
      }
      const after = await test.start('boot-2')
      const standsOn = { 'second checkpoint': ids.second, 'first checkpoint': ids.first, pause: undefined }[to]
      expect(after.manager.get(capsuleId)).toMatchObject({ state: 'paused', pauseReason: 'host_restart' })
      expect(after.manager.get(capsuleId)?.checkpointId).toBe(standsOn)
      await after.manager.resume(capsuleId)
      const guest = test.guestOf(after.manager.get(capsuleId) ?? { resources: undefined })
      expect(await guest.readRam()).toEqual({ nonce: to })
      await after.manager.destroyAll()
      expect(await test.leftovers()).toEqual(nothing)
    })
  })

  it('a paused capsule whose state was not durable yet is kept, with a warning', async () => {
    test.makeDurable = async (_dir, _names, { signal }) =>
      await new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('stopped'))))
    const { manager, hotPool } = await test.start()
    const { capsuleId } = await manager.create(input())
    await hotPool.close()
    await manager.pause(capsuleId, 'request')
    await test.powerOff()
    const after = await test.start('boot-2')
    expect(after.manager.get(capsuleId)).toMatchObject({ state: 'paused', notice: expect.stringContaining('may be') })
    expect((await after.manager.resume(capsuleId)).state).toBe('running')
  })

  it('a capsule of which nothing was saved has ended, and says why', async () => {
    const { manager, hotPool } = await test.start()
    const { capsuleId } = await manager.create(input())
    await hotPool.close()
    await manager.detach()
    await test.powerOff()
    const after = await test.start('boot-2')
    expect(after.manager.get(capsuleId)).toMatchObject({ state: 'error', exit: { cause: 'unknown' } })
    expect(await test.leftovers()).toMatchObject({ slots: 0, run: [] })
    await expect(after.manager.resume(capsuleId)).rejects.toMatchObject({ code: 'invalid_state' })
  })
})
