import { AppError } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { input, nothing, shape, TestMachine } from '../testing/test-machine.js'
import type { CapsuleEvent } from './manager.js'

describe('the capsule manager', () => {
  let test: TestMachine

  const start = async () => await test.start()
  const leftovers = async () => await test.leftovers()

  beforeEach(async () => {
    test = await TestMachine.create()
  })

  afterEach(async () => {
    await test[Symbol.asyncDispose]()
  })

  it('boots a new shape once, restores it afterwards, and gives every capsule its own identity', async () => {
    const { manager, hotPool } = await start()
    const [first, second] = [input(), input()]
    expect((await manager.create(first)).path).toBe('cold')
    await hotPool.close()
    expect((await manager.create(second)).path).toBe('restore')
    const identities = [first, second].map(({ capsuleId }) => test.agents.get(capsuleId)?.identities.at(-1))
    expect(identities.map((identity) => identity?.capsuleId)).toEqual([first.capsuleId, second.capsuleId])
    expect(identities[0]).toMatchObject({ hostname: 'box', envs: { A: '1' } })
    for (const key of ['secret', 'machineId', 'entropy']) expect(identities[0]?.[key]).not.toBe(identities[1]?.[key])
    await manager.destroyAll()
    expect(await leftovers()).toEqual(nothing)
  })

  it('claims a waiting guest when there is one and never hands one out twice', async () => {
    const { manager, hotPool, shapes } = await start()
    const snapshot = await manager.prepareShape(await shapes.describe(shape))
    hotPool.offer(snapshot, 2)
    while (hotPool.status()[0]?.hot !== 2) await new Promise((resolve) => setImmediate(resolve))
    const records = await Promise.all([input(), input()].map((each) => manager.create(each)))
    expect(records.map(({ path }) => path)).toEqual(['hot', 'hot'])
    expect(new Set(records.map(({ resources }) => resources?.vmId)).size).toBe(2)
    await hotPool.close()
    await manager.destroyAll()
    expect(await leftovers()).toEqual(nothing)
  })

  it('lets concurrent creates of a new shape share one cold boot', async () => {
    const { manager, hotPool } = await start()
    const records = await Promise.all([input(), input(), input()].map((each) => manager.create(each)))
    expect(records.filter(({ path }) => path === 'cold')).toHaveLength(1)
    await hotPool.close()
    await manager.destroyAll()
    expect(await leftovers()).toEqual(nothing)
  })

  it('leaves nothing behind when the engine does not start, and a later create works', async () => {
    const { manager, hotPool } = await start()
    test.bootFails = true
    await expect(manager.create(input())).rejects.toMatchObject({ code: 'engine_failure' })
    expect(await leftovers()).toEqual(nothing)
    test.bootFails = false
    expect((await manager.create(input())).state).toBe('running')
    await hotPool.close()
    await manager.destroyAll()
  })

  it('boots a guest once more whose kernel panicked, and leaves nothing of the first', async () => {
    const { manager, hotPool } = await start()
    test.bootPanics = 1
    const { capsuleId, path, state } = await manager.create(input())
    expect({ path, state }).toEqual({ path: 'cold', state: 'running' })
    await hotPool.close()
    await manager.destroy(capsuleId)
    expect(await leftovers()).toEqual(nothing)
  })

  it('says that a guest panicked at every boot, and leaves nothing behind', async () => {
    const { manager, hotPool } = await start()
    test.bootPanics = 2
    const panicked = { code: 'guest_died', message: 'The guest kernel panicked.' }
    await expect(manager.create(input())).rejects.toMatchObject(panicked)
    await hotPool.close()
    expect(await leftovers()).toEqual(nothing)
  })

  it('refuses an unknown template before it takes anything of the machine', async () => {
    const { manager } = await start()
    await expect(manager.create(input({ template: 'nope' }))).rejects.toMatchObject({ code: 'template_not_found' })
    expect(await leftovers()).toEqual(nothing)
  })

  it('takes up running capsules after a restart and reports those that ended meanwhile', async () => {
    const before = await start()
    const [kept, died] = [input(), input()]
    await before.manager.create(kept)
    await before.hotPool.close()
    await before.manager.create(died)
    await before.manager.detach()
    for (const guest of test.vms.guests.values()) if (guest.spec.id === died.capsuleId) guest.end('killed')
    const after = await start()
    expect(after.manager.get(kept.capsuleId)?.state).toBe('running')
    expect(after.manager.get(died.capsuleId)).toMatchObject({ state: 'error', exit: { cause: 'unknown' } })
    await expect(after.manager.running(died.capsuleId)).rejects.toMatchObject({ code: 'guest_died' })
    await after.manager.destroyAll()
    expect(await leftovers()).toEqual(nothing)
  })

  it('answers a create that is asked for again with the capsule that it made, paused or not', async () => {
    const { manager, capsuleId } = await test.startWithCapsule()
    expect(await manager.create(input({ capsuleId }))).toMatchObject({ capsuleId, state: 'running' })
    await manager.pause(capsuleId, 'request')
    expect(await manager.create(input({ capsuleId }))).toMatchObject({ capsuleId, state: 'paused' })
    await manager.destroyAll()
  })

  it('notices at once that a guest ended, says why, and gives its slot back', async () => {
    const { manager, hotPool } = await start()
    const { capsuleId } = await manager.create(input())
    await hotPool.close()
    const ended = new Promise<CapsuleEvent>((resolve) => {
      manager.watch((event) => {
        if ('record' in event && event.record.state === 'error') resolve(event)
      })
    })
    for (const guest of test.vms.guests.values()) guest.end('guest_panic', 'The guest kernel panicked.')
    expect(await ended).toMatchObject({ record: { capsuleId, exit: { cause: 'guest_panic' } } })
    expect(test.slotsInUse.size).toBe(0)
    expect(manager.whyGone(capsuleId)).toMatchObject({ code: 'guest_died', message: 'The guest kernel panicked.' })
    const again = manager.create(input({ capsuleId }))
    await expect(again).rejects.toMatchObject({
      code: 'guest_died',
      message: expect.stringContaining('The guest kernel panicked.'),
    })
    expect(await manager.destroy(capsuleId)).toBe(true)
    expect(await manager.destroy(capsuleId)).toBe(false)
    expect(await leftovers()).toEqual(nothing)
  })

  it('tells a call that was cut why, also when it was cut before the end of the guest was noticed', async () => {
    const { manager, capsuleId } = await test.startWithCapsule()
    const cut = Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' })
    expect(await manager.explain(capsuleId, cut)).toMatchObject({ code: 'guest_unreachable' })
    const explained = manager.explain(capsuleId, cut)
    for (const guest of test.vms.guests.values()) guest.end('guest_shutdown', 'The guest shut itself down.')
    expect(await explained).toMatchObject({ code: 'guest_died', message: 'The guest shut itself down.' })
    const full = new AppError('disk_full', 'The disk is full.')
    expect(await manager.explain(capsuleId, full)).toBe(full)
    await manager.destroyAll()
  })
})
