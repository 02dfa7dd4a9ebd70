import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { checkpointIds } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { nothing, TestMachine } from '../../testing/test-machine.js'
import type { CapsuleManager } from '../manager.js'
import type { CapsuleRecord } from '../types.js'

const WITHOUT_IT = { version: 'fake 3', machines: ['fake-3'] }
const fromDisk = { envs: { A: '1' }, defaultUser: 'root', defaultCwd: '/root' }
let test: TestMachine
let manager: CapsuleManager
let capsuleId: string

beforeEach(async () => {
  test = await TestMachine.create()
  const started = await test.startWithCapsule()
  manager = started.manager
  capsuleId = started.capsuleId
  await test.guestOf(record()).writeRam({ nonce: 'memory' })
})
afterEach(async () => {
  await test[Symbol.asyncDispose]()
})

function record(): CapsuleRecord {
  const found = manager.get(capsuleId)
  if (found === undefined) throw new Error('The capsule is on the host.')
  return found
}

const pool = (...path: string[]): string => join(test.dir, 'pool', ...path)
const fileOf = (name: string): string => pool('capsules', capsuleId, String(record().files), name)
const writeDisk = async (text: string): Promise<void> => {
  const disk = Buffer.alloc(2 ** 20)
  disk.write(text)
  await writeFile(fileOf('disk.raw'), disk)
}
const readDisk = async (): Promise<string> =>
  (await readFile(fileOf('disk.raw'))).toString('utf8', 0, 16).replaceAll('\0', '')
const recall = async (): Promise<unknown> => (await test.guestOf(record()).readRam()).nonce
const generations = async (): Promise<string[]> =>
  (await manager.context.states.listAll(`capsules/${capsuleId}`)).filter((name) => name !== 'checkpoints').sort()
const untilDurable = async (): Promise<number> => await test.until(() => record().durableAtMs)

async function die(): Promise<void> {
  test.guestOf(record()).end('guest_panic', 'The guest kernel panicked.')
  await test.until(() => (record().state === 'error' ? true : undefined))
}

/** The next one who reaches `step` fails. */
function breakAt(step: string): void {
  test.reach = (reached) => {
    if (reached !== step) return
    test.reach = () => {}
    throw new Error(`${step} was made to fail`)
  }
}

describe('a resume from the disk', () => {
  it('starts a paused capsule whose memory does not load: files kept, memory gone, same id, name and secret', async () => {
    await writeDisk('files')
    const { secret, hostname } = record()
    await manager.pause(capsuleId, 'request')
    test.engine.installed = WITHOUT_IT
    await expect(manager.resume(capsuleId)).rejects.toMatchObject({ code: 'state_not_loadable' })
    const resumed = await manager.resume(capsuleId, fromDisk)
    expect(resumed).toMatchObject({ state: 'running', secret, notice: expect.stringContaining('from its disk') })
    expect([await readDisk(), await recall()]).toEqual(['files', undefined])
    expect(test.guestOf(record()).spec.hardware.machine).toBe('fake-3')
    const told = test.agents.get(capsuleId)?.identities ?? []
    expect(told[0]).toMatchObject({ capsuleId, hostname, secret, envs: { A: '1' } })
    expect(told[0]).not.toHaveProperty('machineId')
    expect(told[1]).toMatchObject({ defaultUser: 'root', defaultCwd: '/root' })
    await manager.pause(capsuleId, 'request')
    await manager.resume(capsuleId)
    await manager.destroyAll()
    expect(await test.leftovers()).toEqual(nothing)
  })

  it('has the guest trust the authority of its rules, whose certificate its disk may not have', async () => {
    await manager.pause(capsuleId, 'request')
    await manager.setEgress(capsuleId, { internet: true, allow: [], deny: [], intercept: true, rules: [] }, 1)
    await manager.resume(capsuleId, fromDisk)
    const agent = test.agents.get(capsuleId)
    expect(agent?.trusted).toEqual([record().egress.authority?.cert.trim()])
    expect(agent?.identities.at(-1)).toMatchObject({ envs: { A: '1', NODE_EXTRA_CA_CERTS: expect.any(String) } })
  })

  it('keeps the state that it gave up until a newer one is durable', async () => {
    await manager.pause(capsuleId, 'request')
    await untilDurable()
    await manager.resume(capsuleId, fromDisk)
    expect(record()).toMatchObject({ files: 1, fallback: 0 })
    expect(await generations()).toEqual(['0', '1'])
    await manager.pause(capsuleId, 'request')
    await untilDurable()
    await test.until(async () => ((await generations()).length === 1 ? true : undefined))
    expect(await generations()).toEqual(['1'])
  })

  it('keeps the older durable state where the one that it gives up is not durable yet', async () => {
    await manager.pause(capsuleId, 'request')
    await untilDurable()
    await manager.resume(capsuleId)
    test.makeDurable = () => new Promise(() => {})
    await manager.pause(capsuleId, 'request')
    await manager.resume(capsuleId, fromDisk)
    expect(record()).toMatchObject({ files: 2, fallback: 0 })
    expect(await generations()).toEqual(['0', '2'])
  })

  it('needs neither memory nor device state, which may be damaged, but the disk', async () => {
    await writeDisk('files')
    await manager.pause(capsuleId, 'request')
    for (const name of ['mem', 'state']) await rm(fileOf(name))
    await expect(manager.resume(capsuleId)).rejects.toMatchObject({ code: 'snapshot_damaged' })
    const disk = await readFile(fileOf('disk.raw'))
    await rm(fileOf('disk.raw'))
    await expect(manager.resume(capsuleId, fromDisk)).rejects.toMatchObject({
      code: 'snapshot_damaged',
      message: expect.stringContaining('disk.raw is missing'),
    })
    expect(record().state).toBe('paused')
    await writeFile(fileOf('disk.raw'), disk)
    await manager.resume(capsuleId, fromDisk)
    expect(await readDisk()).toBe('files')
  })

  it('starts one whose guest ended on the disk that it left, with or without a saved state behind it', async () => {
    await writeDisk('left')
    await die()
    expect(await manager.resume(capsuleId, fromDisk)).toMatchObject({ state: 'running', exit: undefined })
    expect([await readDisk(), await recall()]).toEqual(['left', undefined])
    expect(await generations()).toEqual(['1'])
  })

  for (const step of ['resume:begun', 'guest:launched', 'resume:booted', 'resume:switched']) {
    it(`leaves what it was when it fails at ${step}`, async () => {
      await manager.pause(capsuleId, 'request')
      await untilDurable()
      const { state, files, fallback, notice } = record()
      breakAt(step)
      await expect(manager.resume(capsuleId, fromDisk)).rejects.toThrow(step)
      expect(record()).toMatchObject({ state, files, fallback, notice })
      expect([await generations(), test.slotsInUse.size]).toEqual([['0'], 0])
      await manager.resume(capsuleId)
      expect(await recall()).toBe('memory')
    })

    it(`leaves the end of one that had ended when it fails at ${step}`, async () => {
      await die()
      const { exit } = record()
      breakAt(step)
      await expect(manager.resume(capsuleId, fromDisk)).rejects.toThrow(step)
      expect(record()).toMatchObject({ state: 'error', exit, files: 0 })
      expect([await generations(), test.slotsInUse.size]).toEqual([['0'], 0])
    })
  }

  it('leaves what it was when its guest dies before it is up', async () => {
    await manager.pause(capsuleId, 'request')
    test.bootPanics = 1
    await expect(manager.resume(capsuleId, fromDisk)).rejects.toMatchObject({ code: 'guest_died' })
    expect(record().state).toBe('paused')
    await manager.resume(capsuleId)
    expect(await recall()).toBe('memory')
  })
})

describe('a host agent that dies during a resume from the disk', () => {
  /** Stops for ever at `step`, as a process that was killed; another host agent then starts. */
  async function dieAt(step: string): Promise<void> {
    const reached = new Promise<void>((resolve) => {
      test.reach = (name) => {
        if (name !== step) return
        resolve()
        throw new Error('killed')
      }
    })
    const journal = pool('../journal', `${capsuleId}.json`)
    const resuming = manager.resume(capsuleId, fromDisk).catch(() => {})
    await reached
    const text = await readFile(journal, 'utf8')
    await resuming
    test.reach = () => {}
    await writeFile(journal, text)
    manager = (await test.start()).manager
  }

  it('finds the saved state as it was', async () => {
    await manager.pause(capsuleId, 'request')
    await dieAt('resume:booted')
    expect(record().state).toBe('paused')
    expect(await generations()).toEqual(['0'])
    await manager.resume(capsuleId)
    expect(await recall()).toBe('memory')
  })

  it('finds one that had ended as it was, with its disk', async () => {
    await writeDisk('left')
    await die()
    await dieAt('resume:booted')
    expect(record()).toMatchObject({ state: 'error', exit: { message: 'The guest kernel panicked.' } })
    expect(await readDisk()).toBe('left')
    await manager.resume(capsuleId, fromDisk)
    expect(await readDisk()).toBe('left')
  })
})

describe('a resume of one whose guest ended, from a state that does not load', () => {
  it('is refused before the disk that the guest left is given up for it', async () => {
    await manager.points.create(capsuleId, checkpointIds.create())
    await writeDisk('newer')
    await die()
    test.engine.installed = WITHOUT_IT
    await expect(manager.resume(capsuleId)).rejects.toMatchObject({ code: 'state_not_loadable' })
    await manager.resume(capsuleId, fromDisk)
    expect(await readDisk()).toBe('newer')
  })
})

describe('a rollback from the disk', () => {
  const checkpointId = checkpointIds.create()

  beforeEach(async () => {
    await writeDisk('then')
    await manager.points.create(capsuleId, checkpointId)
    await writeDisk('now')
    test.engine.installed = WITHOUT_IT
  })

  it('starts a running capsule, or one that had ended, from the files of the checkpoint', async () => {
    await expect(manager.points.rollback(capsuleId, checkpointId)).rejects.toMatchObject({ code: 'state_not_loadable' })
    for (const endsFirst of [false, true]) {
      if (endsFirst) await die()
      const rolledBack = await manager.points.rollback(capsuleId, checkpointId, fromDisk)
      expect(rolledBack).toMatchObject({ state: 'running', checkpointId, exit: undefined })
      expect([await readDisk(), await recall()]).toEqual(['then', undefined])
      await test.until(async () => ((await generations()).length === 1 ? true : undefined))
    }
  })

  it('of a paused one leaves it paused, to be started from the disk', async () => {
    await manager.pause(capsuleId, 'request')
    await manager.points.rollback(capsuleId, checkpointId, fromDisk)
    expect(record()).toMatchObject({ state: 'paused', checkpointId })
    await manager.resume(capsuleId, fromDisk)
    expect(await readDisk()).toBe('then')
  })

  for (const step of ['rollback:begun', 'guest:launched', 'rollback:restored', 'rollback:switched']) {
    it(`lets the capsule run on when it fails at ${step}`, async () => {
      breakAt(step)
      await expect(manager.points.rollback(capsuleId, checkpointId, fromDisk)).rejects.toThrow(step)
      expect(record()).toMatchObject({ state: 'running', files: 0 })
      expect(record().notice).toBeUndefined()
      expect([await recall(), await readDisk()]).toEqual(['memory', 'now'])
    })
  }
})
