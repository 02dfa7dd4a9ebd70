import { silentLogger } from '@wrenn/base'
import { FAKE_HARDWARE } from '@wrenn/vmm'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { input, TestMachine } from '../../testing/test-machine.js'
import type { CapsuleManager } from '../manager.js'
import { Renewal } from './renewal.js'

const OLD = FAKE_HARDWARE.machine
let test: TestMachine
let manager: CapsuleManager
let renewal: Renewal

/** What a start of the host agent does. */
async function start(): Promise<void> {
  manager = (await test.start()).manager
  const machine = test.machine()
  const { shapes } = manager.context
  const renew = (shape: Parameters<CapsuleManager['renewShape']>[0]) => manager.renewShape(shape)
  renewal = new Renewal({ machine, shapes, renew, logger: silentLogger })
}

beforeEach(async () => {
  test = await TestMachine.create()
  await start()
  for (const vcpus of [1, 2]) await manager.create(input({ vcpus }))
})
afterEach(async () => {
  await manager.context.hotPool.close()
  await test[Symbol.asyncDispose]()
})

const machineOf = (id: string): string | undefined =>
  test.guestOf(manager.get(id) ?? { resources: undefined }).spec.hardware.machine
const untilCurrent = async (): Promise<true> =>
  await test.until(async () => {
    const { shapes } = manager.context
    return (await shapes.outdated(await test.machine().images.list())).length === 0 ? true : undefined
  })

describe('a replaced engine', () => {
  it('is noticed at the start: every shape of before is made anew, without a create', async () => {
    expect(await renewal.look()).toEqual([])
    test.engine.installed = { version: 'fake 2', machines: ['fake-2', OLD] }
    await start()
    expect((await renewal.look()).map(({ vcpus }) => vcpus).sort()).toEqual([1, 2])
    await untilCurrent()
    expect(await renewal.look()).toEqual([])
    const { path, capsuleId } = await manager.create(input())
    expect([['hot', 'restore'].includes(path), machineOf(capsuleId)]).toEqual([true, 'fake-2'])
  })

  it('is noticed while the host agent runs, each version once', async () => {
    await renewal.look()
    test.engine.installed = { version: 'fake 2', machines: ['fake-2', OLD] }
    expect(await renewal.look()).toHaveLength(2)
    expect(await renewal.look()).toEqual([])
    await untilCurrent()
  })

  it('refuses no create while shapes are made anew, not even where nothing of before loads', async () => {
    await renewal.look()
    test.engine.installed = { version: 'fake 3', machines: ['fake-3'] }
    await renewal.look()
    const { capsuleId } = await manager.create(input())
    expect(machineOf(capsuleId)).toBe('fake-3')
    await untilCurrent()
  })

  it('that does not run just now is asked again', async () => {
    await renewal.look()
    const { version } = test.engine
    test.engine.version = () => Promise.reject(new Error('no such file'))
    expect(await renewal.look()).toEqual([])
    test.engine.version = version
    test.engine.installed = { version: 'fake 2', machines: ['fake-2', OLD] }
    expect(await renewal.look()).toHaveLength(2)
    await untilCurrent()
  })
})
