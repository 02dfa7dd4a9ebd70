import { copyFile, mkdir, mkdtemp, readdir, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AppError, capsuleIds, silentLogger } from '@wrenn/base'
import { FakeGuest } from '@wrenn/testkit'
import { createFakeEngine, type FakeEngine, FakeMachine, type FakeVmGuest } from '@wrenn/vmm'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { GuestFactory } from './guest.js'
import { GUEST_PORT } from './guest-client.js'
import { HotPool } from './hot-pool.js'
import { Journal } from './journal.js'
import type { Machine } from './machine.js'
import { type CapsuleEvent, CapsuleManager } from './manager.js'
import { ShapeStore } from './shapes.js'
import type { CreateCapsuleInput } from './types.js'

const shape = { template: 'minimal', vcpus: 1, memoryMib: 16, diskSizeMib: 64 }

function input(change: Partial<CreateCapsuleInput> = {}): CreateCapsuleInput {
  return {
    ...shape,
    capsuleId: capsuleIds.create(),
    teamId: 'team-1',
    envs: { A: '1' },
    egress: { internet: true, allow: [], deny: [] },
    hostname: 'box',
    defaultUser: '',
    defaultCwd: '',
    generation: 1,
    ...change,
  }
}

/** A machine without processes: fake engine, guests on loopback addresses, plain copies instead of clones. */
class TestMachine {
  readonly vms = new FakeMachine()
  readonly agents = new Map<string, FakeGuest>()
  readonly slotsInUse = new Set<number>()
  readonly engine: FakeEngine
  bootFails = false

  constructor(readonly dir: string) {
    this.engine = createFakeEngine({ machine: this.vms, onStart: (guest) => this.#serve(guest) })
  }

  async #serve(guest: FakeVmGuest): Promise<void> {
    if (this.bootFails) throw new AppError('engine_failure', 'The engine did not start.')
    const agent = new FakeGuest()
    await agent.listen(`127.84.0.${guest.spec.confinement.uid}`, GUEST_PORT)
    this.agents.set(guest.spec.id, agent)
    void guest.exited.then(() => agent[Symbol.asyncDispose]())
  }

  machine(): Machine {
    const image = {
      name: 'minimal',
      aliases: ['base'],
      digest: 'image-1',
      basePath: join(this.dir, 'pool/layer'),
      agentPath: join(this.dir, 'pool/layer'),
      kernel: { kernelPath: join(this.dir, 'pool/layer'), initrdPath: join(this.dir, 'pool/layer'), args: [] },
      kernelVersion: '6.12',
      layers: ['a', 'b'],
      sizeBytes: 1,
      createdAtMs: 1,
    }
    return {
      engine: this.engine,
      engineVersion: 'fake 1',
      runDir: join(this.dir, 'run'),
      slots: {
        acquire: async () => {
          let index = 1
          while (this.slotsInUse.has(index)) index++
          this.slotsInUse.add(index)
          const address = `127.84.0.${index}`
          return { index, namespace: `n${index}`, tap: 't', mac: 'm', uid: index, gid: index, guestAddress: address }
        },
        release: async (index) => {
          this.slotsInUse.delete(index)
        },
        rename: async () => {},
        applyPolicy: async () => {},
      },
      cgroups: { create: async () => [], remove: async () => {} },
      pool: {
        path: join(this.dir, 'pool'),
        filesystem: 'test',
        clone: async (from, to) => await copyFile(from, to),
        usage: async () => ({ totalBytes: 1, freeBytes: 1 }),
        ensureSpace: async () => {},
        sync: async () => {},
        measure: async () => ({ bytes: 0, exclusiveBytes: 0 }),
      },
      images: {
        template: async (name) => {
          if (name === 'minimal' || name === 'base') return image
          throw new AppError('template_not_found', `There is no template ${name}.`)
        },
        list: async () => [image],
        blankDisk: async () => join(this.dir, 'pool/blank'),
      },
    }
  }
}

describe('the capsule manager', () => {
  let dir: string
  let test: TestMachine

  /** A host agent over the machine, as after a (re)start. */
  async function start() {
    const machine = test.machine()
    const factory = new GuestFactory(machine, silentLogger)
    const hotPool = new HotPool(factory, { max: 2, busy: () => false, logger: silentLogger })
    const journal = new Journal(join(dir, 'journal'), silentLogger)
    const shapes = new ShapeStore(machine, silentLogger)
    const manager = new CapsuleManager({
      ...{ machine, journal, factory, shapes, hotPool, logger: silentLogger },
      bootId: 'boot-1',
      makeDurable: async () => ({}),
    })
    await manager.adopt(await journal.open())
    return { manager, hotPool, shapes }
  }

  const leftovers = async () => ({
    slots: test.slotsInUse.size,
    files: await readdir(join(dir, 'pool/capsules')),
    journal: await readdir(join(dir, 'journal')),
    run: await readdir(join(dir, 'run')),
    living: [...test.vms.guests.values()].filter((guest) => guest.exit === undefined).length,
  })
  const nothing = { slots: 0, files: [], journal: [], run: [], living: 0 }

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'wrenn-manager-'))
    for (const folder of ['pool/capsules', 'pool/templates', 'run', 'journal']) {
      await mkdir(join(dir, folder), { recursive: true })
    }
    await writeFile(join(dir, 'pool/layer'), 'layer')
    await writeFile(join(dir, 'pool/blank'), '')
    await truncate(join(dir, 'pool/blank'), shape.diskSizeMib * 2 ** 20)
    test = new TestMachine(dir)
  })

  afterEach(async () => {
    for (const guest of test.vms.guests.values()) guest.end('killed')
    await rm(dir, { recursive: true, force: true })
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
    expect(await manager.destroy(capsuleId)).toBe(true)
    expect(await manager.destroy(capsuleId)).toBe(false)
    expect(await leftovers()).toEqual(nothing)
  })
})
