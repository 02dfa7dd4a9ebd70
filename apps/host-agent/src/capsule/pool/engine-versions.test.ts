import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { capsuleIds, checkpointIds, snapshotIds } from '@wrenn/base'
import { FAKE_HARDWARE } from '@wrenn/vmm'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { input, shape, TestMachine } from '../../testing/test-machine.js'
import type { CapsuleManager } from '../manager.js'

const OLD = { version: 'fake 1', machines: [FAKE_HARDWARE.machine] }
/** Has the old machine type, and one of its own for new guests. */
const NEW = { version: 'fake 2', machines: ['fake-2', FAKE_HARDWARE.machine] }
/** Has dropped the old machine type. */
const LATE = { version: 'fake 3', machines: ['fake-3'] }

const checkpointId = checkpointIds.create()
const snapshotId = snapshotIds.create()
let test: TestMachine
let manager: CapsuleManager
let capsuleId: string

beforeEach(async () => {
  test = await TestMachine.create()
  const started = await test.startWithCapsule()
  manager = started.manager
  capsuleId = started.capsuleId
  await test.guestOf(record()).writeRam({ nonce: 'saved' })
  await manager.points.create(capsuleId, checkpointId)
  await manager.snapshots.create(capsuleId, snapshotId)
  await manager.pause(capsuleId, 'request')
})
afterEach(async () => {
  await test[Symbol.asyncDispose]()
})

function record(id: string = capsuleId) {
  const found = manager.get(id)
  if (found === undefined) throw new Error('The capsule is on the host.')
  return found
}

const recall = async (id?: string): Promise<unknown> => (await test.guestOf(record(id)).readRam()).nonce
const machineOf = (id?: string): string => test.guestOf(record(id)).spec.hardware.machine
const copy = () => ({ capsuleId: capsuleIds.create(), hostname: 'copy', generation: 1, envs: {} })

describe('states saved by an older version of the engine', () => {
  beforeEach(() => {
    test.engine.installed = NEW
  })

  it('are resumed, rolled back to, forked and started from on the hardware they were saved on', async () => {
    const fromSnapshot = input({ snapshotId })
    const forked = copy()
    await manager.create(fromSnapshot)
    await manager.fork(capsuleId, [forked])
    await manager.resume(capsuleId)
    for (const id of [capsuleId, forked.capsuleId, fromSnapshot.capsuleId]) {
      expect([await recall(id), machineOf(id)]).toEqual(['saved', FAKE_HARDWARE.machine])
      expect(record(id).engineVersion).toBe('fake 2')
    }
    await test.guestOf(record()).writeRam({ nonce: 'later' })
    await manager.points.rollback(capsuleId, checkpointId)
    expect([await recall(), machineOf()]).toEqual(['saved', FAKE_HARDWARE.machine])
  })

  it('stay on that hardware when they are saved again, so that the older version takes them back', async () => {
    await manager.resume(capsuleId)
    await manager.pause(capsuleId, 'request')
    test.engine.installed = OLD
    expect((await manager.resume(capsuleId)).engineVersion).toBe('fake 1')
    expect(await recall()).toBe('saved')
  })

  it('say by the version that saved them what they need, when they are of before states had it on record', async () => {
    const path = join(test.dir, 'pool/capsules', capsuleId, '0/manifest.json')
    const { hardware: _, ...manifest } = JSON.parse(await readFile(path, 'utf8'))
    await writeFile(path, JSON.stringify({ ...manifest, engineVersion: 'qemu 7.2.22 layout 1' }))
    await expect(manager.resume(capsuleId)).rejects.toMatchObject({
      code: 'state_not_loadable',
      message: expect.stringMatching(/qemu 7\.2\.22 .*fake 2 has no machine type pc-q35-7\.2/),
    })
    test.engine.installed = { version: 'fake 4', machines: ['pc-q35-7.2'] }
    await manager.resume(capsuleId)
    expect([await recall(), machineOf()]).toEqual(['saved', 'pc-q35-7.2'])
  })
})

describe('states that the installed engine cannot load', () => {
  it('are refused by what is missing, lose nothing, and load again when it is back', async () => {
    test.engine.installed = LATE
    const refused = {
      code: 'state_not_loadable',
      message: expect.stringContaining(`fake 3 has no machine type ${FAKE_HARDWARE.machine}`),
    }
    await expect(manager.resume(capsuleId)).rejects.toMatchObject(refused)
    await expect(manager.points.rollback(capsuleId, checkpointId)).rejects.toMatchObject(refused)
    await expect(manager.fork(capsuleId, [copy()])).rejects.toMatchObject(refused)
    await expect(manager.create(input({ snapshotId }))).rejects.toMatchObject(refused)
    expect(record().state).toBe('paused')
    test.engine.installed = OLD
    await manager.resume(capsuleId)
    expect(await recall()).toBe('saved')
    await manager.points.rollback(capsuleId, checkpointId)
    expect(await recall()).toBe('saved')
  })

  it('can be copied: a checkpoint of a paused capsule needs no engine', async () => {
    test.engine.installed = LATE
    const kept = checkpointIds.create()
    await manager.points.create(capsuleId, kept)
    test.engine.installed = OLD
    await manager.points.rollback(capsuleId, kept)
    await manager.resume(capsuleId)
    expect(await recall()).toBe('saved')
  })
})

describe('a snapshot of a shape', () => {
  it('of an older version serves creates until it is made anew behind them, on the newest hardware', async () => {
    test.engine.installed = NEW
    const old = await manager.create(input())
    expect([old.path, machineOf(old.capsuleId)]).toEqual(['restore', FAKE_HARDWARE.machine])
    const { shapes, hotPool } = manager.context
    const current = await shapes.describe(shape)
    await test.until(() => shapes.find(current))
    await test.until(() => (hotPool.snapshotOf(current)?.key === current.key ? true : undefined))
    const later = await manager.create(input())
    expect([later.path, machineOf(later.capsuleId)]).toEqual(['restore', 'fake-2'])
  })

  it('that the installed version cannot load is made anew by the create that needs it', async () => {
    test.engine.installed = LATE
    const { capsuleId: id, path } = await manager.create(input())
    expect([path, machineOf(id)]).toEqual(['cold', 'fake-3'])
    expect((await manager.create(input())).path).toBe('restore')
  })
})
