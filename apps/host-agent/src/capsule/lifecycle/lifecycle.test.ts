import { createHash } from 'node:crypto'
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, capsuleIds, checkpointIds, snapshotIds } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { input, LAYER, nothing, shape, TestMachine } from '../../testing/test-machine.js'
import type { CapsuleManager } from '../manager.js'
import type { CapsuleRecord } from '../types.js'
import { GarbageCollector } from './garbage.js'

let test: TestMachine
let manager: CapsuleManager
let capsuleId: string

beforeEach(async () => {
  test = await TestMachine.create()
  const started = await test.startWithCapsule()
  manager = started.manager
  capsuleId = started.capsuleId
})
afterEach(async () => {
  await test[Symbol.asyncDispose]()
})

function record(id = capsuleId): CapsuleRecord {
  const found = manager.get(id)
  if (found === undefined) throw new Error('The capsule is on the host.')
  return found
}

const remember = async (nonce: string): Promise<void> => await test.guestOf(record()).writeRam({ nonce })
const recall = async (id = capsuleId): Promise<unknown> => (await test.guestOf(record(id)).readRam()).nonce
const generations = async (): Promise<string[]> =>
  (await manager.context.states.listAll(`capsules/${capsuleId}`)).filter((name) => name !== 'checkpoints').sort()
const untilDurable = async (): Promise<number> => await test.until(() => record().durableAtMs)

/** The next one who reaches `step` fails. */
function breakAt(step: string): void {
  test.reach = (reached) => {
    if (reached !== step) return
    test.reach = () => {}
    throw new Error(`${step} was made to fail`)
  }
}

async function expectNothingLeft(): Promise<void> {
  await manager.destroyAll()
  expect(await test.leftovers()).toEqual(nothing)
}

describe('a capsule whose guest ended', () => {
  it('goes on from the checkpoint it stands on, and says so; without one there is nothing to resume', async () => {
    const ended = () => test.until(() => (record().state === 'error' ? true : undefined))
    test.guestOf(record()).end('guest_panic')
    await ended()
    await expect(manager.resume(capsuleId)).rejects.toMatchObject({ code: 'invalid_state' })
    await manager.destroy(capsuleId)
    capsuleId = (await manager.create(input())).capsuleId
    await remember('kept')
    await manager.points.create(capsuleId, checkpointIds.create())
    await remember('newer')
    test.guestOf(record()).end('guest_panic')
    await ended()
    expect(await manager.resume(capsuleId)).toMatchObject({
      state: 'running',
      notice: expect.stringContaining('went on from'),
    })
    expect(await recall()).toBe('kept')
    await expectNothingLeft()
  })
})

describe('a resume of a capsule whose guest ended', () => {
  const breakManifest = (checkpointId: string) =>
    test.damage(`capsules/${capsuleId}/checkpoints/${checkpointId}/manifest.json`, '{')

  it('does not need what lies behind the checkpoint that it goes back to', async () => {
    const parent = checkpointIds.create()
    await manager.points.create(capsuleId, parent)
    const checkpointId = await endedWithCheckpoint()
    await breakManifest(parent)
    expect(await manager.resume(capsuleId)).toMatchObject({ state: 'running', checkpointId })
    expect(await recall()).toBe('then')
  })

  it('goes no further back by itself when that checkpoint is damaged', async () => {
    const parent = checkpointIds.create()
    await manager.points.create(capsuleId, parent)
    await breakManifest(await endedWithCheckpoint())
    await expect(manager.resume(capsuleId)).rejects.toMatchObject({ code: 'snapshot_damaged' })
    await manager.points.rollback(capsuleId, parent)
    expect(record().state).toBe('running')
  })
})

/** A capsule with a checkpoint, whose guest then ended. */
async function endedWithCheckpoint(): Promise<string> {
  const checkpointId = checkpointIds.create()
  await remember('then')
  await manager.points.create(capsuleId, checkpointId)
  await remember('now')
  test.guestOf(record()).end('guest_panic', 'The guest kernel panicked.')
  await test.until(() => (record().state === 'error' ? true : undefined))
  return checkpointId
}

describe('a rollback of a capsule whose guest ended', () => {
  it('makes it run again from any of its checkpoints', async () => {
    const first = checkpointIds.create()
    await remember('first')
    await manager.points.create(capsuleId, first)
    const second = await endedWithCheckpoint()
    expect(await manager.points.rollback(capsuleId, first)).toMatchObject({
      ...{ state: 'running', checkpointId: first, exit: undefined, other: undefined },
      lifecycleTimings: expect.arrayContaining([expect.objectContaining({ step: 'restore' })]),
    })
    expect(await recall()).toBe('first')
    await manager.points.rollback(capsuleId, second)
    expect(await recall()).toBe('then')
    await test.until(async () => ((await generations()).length === 1 ? true : undefined))
    expect(test.slotsInUse.size).toBe(1)
    await manager.pause(capsuleId, 'request')
    await manager.resume(capsuleId)
    expect(await recall()).toBe('then')
    test.guestOf(record()).end('guest_panic')
    await test.until(() => (record().state === 'error' ? true : undefined))
    await expectNothingLeft()
  })

  for (const step of ['begun', 'restored', 'switched']) {
    it(`leaves it as it was when it fails at rollback:${step}`, async () => {
      const checkpointId = await endedWithCheckpoint()
      const before = record()
      breakAt(`rollback:${step}`)
      await expect(manager.points.rollback(capsuleId, checkpointId)).rejects.toThrow(step)
      expect(record()).toEqual(before)
      expect(await generations()).toEqual(['0'])
      expect(test.slotsInUse.size).toBe(0)
      await manager.points.rollback(capsuleId, checkpointId)
      expect(await recall()).toBe('then')
      await expectNothingLeft()
    })
  }

  it('also when it ends in the middle of a rollback', async () => {
    const checkpointId = checkpointIds.create()
    await remember('then')
    await manager.points.create(capsuleId, checkpointId)
    const guest = test.guestOf(record())
    test.reach = (step) => {
      if (step === 'rollback:restored') guest.end('guest_panic')
    }
    expect(await manager.points.rollback(capsuleId, checkpointId)).toMatchObject({ state: 'running' })
    expect(await recall()).toBe('then')
    await test.until(() => (record().other === undefined ? true : undefined))
    expect(record().state).toBe('running')
    expect(test.slotsInUse.size).toBe(1)
    await expectNothingLeft()
  })

  it('is refused without such a checkpoint', async () => {
    await endedWithCheckpoint()
    const unknown = manager.points.rollback(capsuleId, checkpointIds.create())
    await expect(unknown).rejects.toMatchObject({ code: 'checkpoint_not_found' })
    expect(record().state).toBe('error')
  })
})

describe('pause and resume', () => {
  it('give the machine back and bring the memory back, as often as wanted', async () => {
    await remember('kept')
    for (let round = 0; round < 3; round++) {
      expect(await manager.pause(capsuleId, 'idle')).toMatchObject({ state: 'paused', pauseReason: 'idle' })
      expect(await manager.pause(capsuleId, 'request')).toMatchObject({ state: 'paused', pauseReason: 'idle' })
      await test.until(() => (record().resources === undefined ? true : undefined))
      expect(test.slotsInUse.size).toBe(0)
      expect((await manager.resume(capsuleId)).state).toBe('running')
      expect((await manager.resume(capsuleId)).state).toBe('running')
      expect(await recall()).toBe('kept')
    }
    expect(await generations()).toEqual(['0'])
    await expectNothingLeft()
  })

  it('keep the last durable state until a newer one is durable', async () => {
    await remember('first')
    await manager.pause(capsuleId, 'request')
    await untilDurable()
    await manager.resume(capsuleId)
    expect(record()).toMatchObject({ files: 1, fallback: 0 })
    await remember('second')
    await manager.pause(capsuleId, 'request')
    await manager.resume(capsuleId) // before it could become durable: in place
    expect(record()).toMatchObject({ files: 1, fallback: 0 })
    expect(await generations()).toEqual(['0', '1'])
    await manager.pause(capsuleId, 'request')
    await untilDurable()
    await test.until(async () => ((await generations()).length === 1 ? true : undefined))
    expect(await generations()).toEqual(['1'])
    expect(record().fallback).toBeUndefined()
    await manager.resume(capsuleId)
    expect(await recall()).toBe('second')
    await expectNothingLeft()
  })

  it('go on from the fallback when the guest ends by itself, and say so', async () => {
    await remember('saved')
    await manager.pause(capsuleId, 'request')
    await untilDurable()
    await manager.resume(capsuleId)
    await remember('never saved')
    test.guestOf(record()).end('guest_panic', 'The guest kernel panicked.')
    await test.until(() => (record().state === 'error' ? true : undefined))
    expect(await manager.resume(capsuleId)).toMatchObject({
      state: 'running',
      notice: expect.stringContaining('The guest kernel panicked.'),
    })
    expect(await recall()).toBe('saved')
    await expectNothingLeft()
  })

  for (const step of ['pause:begun', 'pause:stopped', 'pause:saved', 'pause:committed']) {
    it(`leave the capsule running when a pause fails at ${step}`, async () => {
      await remember('kept')
      breakAt(step)
      await expect(manager.pause(capsuleId, 'request')).rejects.toThrow(step)
      expect(record().state).toBe('running')
      expect(test.guestOf(record()).state).toBe('running')
      expect((await manager.running(capsuleId)).resources.vmId).toBe(capsuleId)
      await manager.pause(capsuleId, 'request')
      await manager.resume(capsuleId)
      expect(await recall()).toBe('kept')
      await expectNothingLeft()
    })
  }

  for (const step of ['resume:begun', 'guest:launched', 'resume:restored', 'resume:retracted']) {
    it(`leave the state resumable when a resume in place fails at ${step}`, async () => {
      await remember('kept')
      await manager.pause(capsuleId, 'request')
      breakAt(step)
      await expect(manager.resume(capsuleId)).rejects.toThrow(step)
      expect(record()).toMatchObject({ state: 'paused', resources: undefined })
      expect((await manager.resume(capsuleId)).state).toBe('running')
      expect(await recall()).toBe('kept')
      await expectNothingLeft()
    })
  }

  for (const step of ['resume:begun', 'resume:restored', 'resume:switched']) {
    it(`leave the state resumable when a resume on clones fails at ${step}`, async () => {
      await remember('kept')
      await manager.pause(capsuleId, 'request')
      await untilDurable()
      breakAt(step)
      await expect(manager.resume(capsuleId)).rejects.toThrow(step)
      expect(record()).toMatchObject({ state: 'paused', files: 0, resources: undefined })
      expect(await generations()).toEqual(['0'])
      await manager.resume(capsuleId)
      expect(await recall()).toBe('kept')
      await expectNothingLeft()
    })
  }

  it('give the machine back when the guest cannot be let run after its state was loaded', async () => {
    await manager.pause(capsuleId, 'request')
    test.reach = (step) => {
      if (step === 'resume:retracted') test.guest(capsuleId)?.end('killed')
    }
    await expect(manager.resume(capsuleId)).rejects.toBeInstanceOf(AppError)
    expect(record()).toMatchObject({ state: 'error', resources: undefined })
    expect(test.slotsInUse.size).toBe(0)
    await expectNothingLeft()
  })

  it('end in an error that names the cause when the guest dies during a pause', async () => {
    test.reach = (step) => {
      if (step === 'pause:stopped') test.guestOf(record()).end('oom_killed', 'It ran out of memory.')
    }
    await expect(manager.pause(capsuleId, 'request')).rejects.toMatchObject({ code: 'guest_died' })
    await test.until(() => (record().state === 'error' ? true : undefined))
    expect(record().exit?.message).toBe('It ran out of memory.')
    await expectNothingLeft()
  })

  it('touch nothing when there is no room for a save', async () => {
    test.ensureSpace = async () => {
      throw Object.assign(new Error('full'), { code: 'disk_full' })
    }
    await expect(manager.pause(capsuleId, 'request')).rejects.toMatchObject({ code: 'disk_full' })
    const checkpointId = checkpointIds.create()
    await expect(manager.points.create(capsuleId, checkpointId)).rejects.toMatchObject({ code: 'disk_full' })
    expect(record().state).toBe('running')
    expect(await manager.points.list(capsuleId)).toEqual([])
    expect(test.guestOf(record()).state).toBe('running')
  })
})

describe('checkpoints', () => {
  it('are what a running capsule goes back to, and it knows on which one it stands', async () => {
    const [first, second] = [checkpointIds.create(), checkpointIds.create()]
    await remember('first')
    expect((await manager.points.create(capsuleId, first)).parentId).toBe('')
    await remember('second')
    expect((await manager.points.create(capsuleId, second)).parentId).toBe(first)
    await remember('third')
    expect(await manager.points.rollback(capsuleId, first)).toMatchObject({ state: 'running', checkpointId: first })
    expect(await recall()).toBe('first')
    await manager.points.rollback(capsuleId, second)
    expect(await recall()).toBe('second')
    await test.until(async () => ((await generations()).length === 1 ? true : undefined))
    expect((await manager.points.list(capsuleId)).map(({ checkpointId }) => checkpointId)).toEqual([first, second])
    await expectNothingLeft()
  })

  it('are what a paused capsule resumes from, and what was before is gone', async () => {
    const checkpointId = checkpointIds.create()
    await remember('then')
    await manager.points.create(capsuleId, checkpointId)
    await remember('now')
    await manager.pause(capsuleId, 'request')
    expect(await manager.points.rollback(capsuleId, checkpointId)).toMatchObject({ state: 'paused', files: 1 })
    expect(await generations()).toEqual(['1'])
    expect(record().durableAtMs).toBeUndefined()
    await manager.points.remove(capsuleId, checkpointId)
    await untilDurable()
    await manager.resume(capsuleId)
    expect(await recall()).toBe('then')
    await expectNothingLeft()
  })

  for (const step of ['flushed', 'stopped', 'cloned', 'committed', 'kept']) {
    it(`do not exist when they fail at checkpoint:${step}`, async () => {
      breakAt(`checkpoint:${step}`)
      await expect(manager.points.create(capsuleId, checkpointIds.create())).rejects.toThrow(step)
      expect(await manager.points.list(capsuleId)).toEqual([])
      expect(await manager.context.states.listAll(`capsules/${capsuleId}/checkpoints`)).toEqual([])
      expect(test.guestOf(record()).state).toBe('running')
      await expectNothingLeft()
    })
  }

  for (const step of ['begun', 'restored', 'switched']) {
    it(`leave the capsule as it is when a rollback fails at rollback:${step}`, async () => {
      const checkpointId = checkpointIds.create()
      await manager.points.create(capsuleId, checkpointId)
      await remember('now')
      const guest = test.guestOf(record())
      breakAt(`rollback:${step}`)
      await expect(manager.points.rollback(capsuleId, checkpointId)).rejects.toThrow(step)
      expect(test.guestOf(record())).toBe(guest)
      expect(guest.state).toBe('running')
      expect(record()).toMatchObject({ state: 'running', files: 0 })
      expect(record().other).toBeUndefined()
      expect(await generations()).toEqual(['0'])
      expect(test.slotsInUse.size).toBe(1)
      await expectNothingLeft()
    })
  }

  it('are gone back to as often and as fast as wanted', async () => {
    const checkpointId = checkpointIds.create()
    await remember('then')
    await manager.points.create(capsuleId, checkpointId)
    for (let round = 0; round < 5; round++) {
      await remember('now')
      await manager.points.rollback(capsuleId, checkpointId)
      expect(await recall()).toBe('then')
    }
    await manager.pause(capsuleId, 'request')
    await manager.resume(capsuleId)
    expect(await recall()).toBe('then')
    expect(record()).toMatchObject({ state: 'running', other: undefined })
    expect(await generations()).toEqual([String(record().files)])
    expect(test.slotsInUse.size).toBe(1)
    await expectNothingLeft()
  })

  it('are listed without one that cannot be read', async () => {
    const [good, bad] = [checkpointIds.create(), checkpointIds.create()]
    for (const id of [good, bad]) await manager.points.create(capsuleId, id)
    await test.damage(`capsules/${capsuleId}/checkpoints/${bad}/manifest.json`, '{')
    expect((await manager.points.list(capsuleId)).map(({ checkpointId }) => checkpointId)).toEqual([good])
  })

  it('tell whoever follows their capsule when they are durable', async () => {
    const checkpointId = checkpointIds.create()
    await manager.points.create(capsuleId, checkpointId)
    const told = new Promise<void>((resolve) => manager.watch(() => resolve()))
    await told
    const [made] = await manager.points.list(capsuleId)
    expect(made?.durableAtMs).toBeGreaterThan(0)
  })

  it('let a capsule be noticed that ends right after its rollback', async () => {
    const checkpointId = checkpointIds.create()
    await manager.points.create(capsuleId, checkpointId)
    await manager.points.rollback(capsuleId, checkpointId)
    test.guestOf(record()).end('guest_panic')
    await test.until(() => (record().state === 'error' ? true : undefined))
    await expectNothingLeft()
  })

  it('are noted when the host agent went down before it could, once their caller asks again', async () => {
    const checkpointId = checkpointIds.create()
    const { capture } = await import('./capture.js')
    const { StepTimer } = await import('../step-timer.js')
    const entry = manager.context.table.entry(capsuleId)
    const dir = `capsules/${capsuleId}/checkpoints/${checkpointId}`
    await capture(entry, manager.context, dir, { syncFiles: false, name: 'checkpoint', timer: new StepTimer() })
    await manager.points.create(capsuleId, checkpointId)
    expect(record().checkpointId).toBe(checkpointId)
  })
})

describe('a fork', () => {
  const copiesOf = (count: number) =>
    Array.from({ length: count }, () => ({ capsuleId: capsuleIds.create(), hostname: 'copy', generation: 1, envs: {} }))

  it('gives each copy the memory and an identity of its own, and leaves the source as it was', async () => {
    await remember('shared')
    const copies = copiesOf(3)
    const { records } = await manager.fork(capsuleId, copies)
    expect(records.map(({ state, parentId }) => [state, parentId])).toEqual(Array(3).fill(['running', capsuleId]))
    for (const { capsuleId: id } of copies) expect(await recall(id)).toBe('shared')
    const all = [record(), ...records]
    expect(new Set(all.map(({ secret }) => secret)).size).toBe(4)
    const identities = copies.map(({ capsuleId: id }) => test.agents.get(id)?.identities.find((one) => one.machineId))
    expect(new Set(identities.map((identity) => identity?.machineId)).size).toBe(3)
    expect(await manager.fork(capsuleId, copies)).toMatchObject({ records: [{}, {}, {}] })
    expect(manager.list()).toHaveLength(4)
    await expectNothingLeft()
  })

  it('that is asked for again while it is under way happens once', async () => {
    const copies = copiesOf(2)
    const [first, second] = await Promise.all([manager.fork(capsuleId, copies), manager.fork(capsuleId, copies)])
    expect(second.records).toEqual(first.records)
    expect(test.slotsInUse.size).toBe(3)
    await expectNothingLeft()
  })

  it('leaves nothing of a copy that is destroyed while it is made', async () => {
    const copies = copiesOf(2)
    const destroyed: Promise<boolean>[] = []
    test.reach = (step) => {
      if (step !== 'fork:restored' || destroyed.length > 0) return
      for (const copy of copies) destroyed.push(manager.destroy(copy.capsuleId))
    }
    await manager.fork(capsuleId, copies)
    expect(await Promise.all(destroyed)).toEqual([true, true])
    expect(manager.list()).toHaveLength(1)
    expect(test.slotsInUse.size).toBe(1)
    expect(await manager.context.states.listAll('capsules')).toEqual([capsuleId])
    await expectNothingLeft()
  })

  it('of a paused capsule leaves it paused', async () => {
    await remember('asleep')
    await manager.pause(capsuleId, 'request')
    const [copy] = copiesOf(1)
    if (copy === undefined) throw new Error('One copy was asked for.')
    await manager.fork(capsuleId, [copy])
    expect(record().state).toBe('paused')
    expect(await recall(copy.capsuleId)).toBe('asleep')
    await expectNothingLeft()
  })

  it('of a guest that drops its connections for a moment, as one that just goes on, waits for it', async () => {
    await remember('kept')
    const agent = test.agents.get(test.guestOf(record()).spec.id)
    if (agent === undefined) throw new Error('The capsule has a guest.')
    agent.resetsConnections = true
    const copies = copiesOf(1)
    const asked = manager.fork(capsuleId, copies)
    await new Promise((resolve) => setTimeout(resolve, 300))
    agent.resetsConnections = false
    await asked
    for (const copy of copies) expect(await recall(copy.capsuleId)).toBe('kept')
    await expectNothingLeft()
  })

  it.each(['a fork', 'a snapshot'])(
    '%s takes a capsule as it is that is paused while it asks whether it answers',
    async (what) => {
      await remember('kept')
      const agent = test.agents.get(test.guestOf(record()).spec.id)
      agent?.mute()
      const copies = copiesOf(1)
      const asked =
        what === 'a fork' ? manager.fork(capsuleId, copies) : manager.snapshots.create(capsuleId, snapshotIds.create())
      await manager.pause(capsuleId, 'request')
      await asked
      expect(record().state).toBe('paused')
      for (const copy of what === 'a fork' ? copies : []) expect(await recall(copy.capsuleId)).toBe('kept')
      await expectNothingLeft()
    },
  )

  for (const step of ['flushed', 'cloned', 'committed', 'restored', 'started', 'kept']) {
    it(`makes no copy when it fails at fork:${step}`, async () => {
      breakAt(`fork:${step}`)
      await expect(manager.fork(capsuleId, copiesOf(2))).rejects.toThrow(step)
      expect(manager.list().map(({ capsuleId: id, state }) => [id, state])).toEqual([[capsuleId, 'running']])
      expect(await manager.context.states.listAll('capsules')).toEqual([capsuleId])
      expect(test.slotsInUse.size).toBe(1)
      expect(test.guestOf(record()).state).toBe('running')
      await expectNothingLeft()
    })
  }
})

describe('what was at a checkpoint', () => {
  const copy = () => ({ capsuleId: capsuleIds.create(), hostname: 'copy', generation: 1, envs: {} })
  let checkpointId: string
  beforeEach(async () => {
    checkpointId = checkpointIds.create()
    await remember('then')
    await manager.points.create(capsuleId, checkpointId)
    await remember('now')
  })

  it('is in its forks and in what a snapshot of it starts, and not in the capsule', async () => {
    const [one, snapshotId] = [copy(), snapshotIds.create()]
    const { records, pauseWindowMs } = await manager.fork(capsuleId, [one], checkpointId)
    await manager.snapshots.create(capsuleId, snapshotId, checkpointId)
    expect([records[0]?.parentId, records[0]?.checkpointId, pauseWindowMs]).toEqual([capsuleId, undefined, 0])
    await manager.points.remove(capsuleId, checkpointId)
    const started = await manager.create(input({ snapshotId }))
    expect([await recall(), await recall(one.capsuleId), await recall(started.capsuleId)]).toEqual([
      'now',
      'then',
      'then',
    ])
    await manager.snapshots.remove(snapshotId)
    await expectNothingLeft()
  })

  it('can be had although the guest cannot be reached now', async () => {
    test.agents.get(test.guestOf(record()).spec.id)?.mute()
    const one = copy()
    await manager.fork(capsuleId, [one], checkpointId)
    expect(await recall(one.capsuleId)).toBe('then')
  })

  it('is refused where it is damaged, and nothing stays of it', async () => {
    await test.damage(`capsules/${capsuleId}/checkpoints/${checkpointId}/state`, 'cut')
    const damaged = { code: 'snapshot_damaged' }
    await expect(manager.fork(capsuleId, [copy()], checkpointId)).rejects.toMatchObject(damaged)
    const asked = manager.snapshots.create(capsuleId, snapshotIds.create(), checkpointId)
    await expect(asked).rejects.toMatchObject(damaged)
    expect(await recall()).toBe('now')
    await manager.points.remove(capsuleId, checkpointId)
    await expectNothingLeft()
  })
})

describe('a snapshot', () => {
  const checksum = async (path: string) => {
    const content = await readFile(path)
    return { bytes: content.length, sha256: createHash('sha256').update(content).digest('hex') }
  }

  it('starts capsules with its memory, outlives its source, and is flushed after a restart', async () => {
    const snapshotId = snapshotIds.create()
    test.makeDurable = async (_dir, _names, { signal }) => await untilAborted(signal)
    await remember('template')
    await manager.snapshots.create(capsuleId, snapshotId)
    await manager.destroy(capsuleId)
    await manager.detach()
    test.makeDurable = async () => ({})
    manager = (await test.start()).manager
    expect((await manager.snapshots.get(snapshotId)).durableAtMs).toBeUndefined()
    capsuleId = (await manager.create(input({ snapshotId }))).capsuleId
    expect(await recall()).toBe('template')
    await test.until(async () => (await manager.snapshots.get(snapshotId)).durableAtMs)
    await manager.snapshots.remove(snapshotId)
    await expectNothingLeft()
  })

  it('that was removed half-way is gone after the next start, and whoever asks for its removal again has it', async () => {
    const [asked, unasked] = [snapshotIds.create(), snapshotIds.create()]
    for (const id of [asked, unasked]) {
      await manager.snapshots.create(capsuleId, id)
      await test.until(async () => (await manager.snapshots.get(id)).durableAtMs)
      // Its manifest went first.
      await rm(join(test.dir, 'pool/snapshots', id, 'manifest.json'))
    }
    expect(await manager.snapshots.remove(asked)).toBeUndefined()
    expect(await readdir(join(test.dir, 'pool/snapshots'))).toEqual([unasked])
    await manager.destroy(capsuleId)
    await manager.detach()
    manager = (await test.start()).manager
    await expectNothingLeft()
  })

  it('is started only as it was saved, where that is asked for', async () => {
    test.makeDurable = async (dir, names) =>
      Object.fromEntries(await Promise.all(names.map(async (name) => [name, await checksum(join(dir, name))] as const)))
    test.verifyFiles = async (dir, files) => {
      for (const [name, { sha256 }] of Object.entries(files)) {
        const now = await checksum(join(dir, name))
        if (now.sha256 !== sha256) return `The file ${name} is damaged: its content is not what was saved.`
      }
      return undefined
    }
    const [snapshotId, late] = [snapshotIds.create(), snapshotIds.create()]
    const verified = (id: string) => manager.create(input({ snapshotId: id, isVerified: true }))
    await manager.snapshots.create(capsuleId, snapshotId)
    await test.until(async () => (await manager.snapshots.get(snapshotId)).durableAtMs)
    await manager.destroy((await verified(snapshotId)).capsuleId)
    await test.damage(`snapshots/${snapshotId}/disk.raw`, 'x'.repeat(shape.diskSizeMib * 2 ** 20))
    await expect(verified(snapshotId)).rejects.toMatchObject({
      code: 'snapshot_damaged',
      message: `The saved state snapshots/${snapshotId} is damaged: The file disk.raw is damaged: its content is not what was saved.`,
    })
    await manager.destroy((await manager.create(input({ snapshotId }))).capsuleId)
    test.makeDurable = async (_dir, _names, { signal }) => await untilAborted(signal)
    await manager.snapshots.create(capsuleId, late)
    await manager.destroy((await verified(late)).capsuleId)
    await manager.detach()
    manager = (await test.start()).manager
    await expect(verified(late)).rejects.toThrow('ended before it had made its checksums')
    test.makeDurable = async () => ({})
    await manager.detach()
    manager = (await test.start()).manager
    await test.until(async () => (await manager.snapshots.get(late)).durableAtMs)
    await expect(verified(late)).rejects.toThrow('ended before it had made its checksums')
    for (const id of [snapshotId, late]) await manager.snapshots.remove(id)
    await manager.destroy(capsuleId)
    await expectNothingLeft()
  })

  it('that cannot be read keeps the layers of all, and the others from nothing', async () => {
    const [good, bad] = [snapshotIds.create(), snapshotIds.create()]
    for (const id of [good, bad]) await manager.snapshots.create(capsuleId, id)
    expect(await manager.layersInUse()).toEqual(new Set([LAYER]))
    await test.damage(`snapshots/${bad}/manifest.json`, '{')
    expect(await manager.layersInUse()).toBeUndefined()
    expect((await manager.snapshots.list()).map(({ snapshotId }) => snapshotId)).toEqual([good])
    const create = manager.create(input({ snapshotId: bad }))
    await expect(create).rejects.toMatchObject({ code: 'snapshot_damaged' })
  })
})

describe('the garbage collector', () => {
  const collector = (): GarbageCollector => new GarbageCollector(manager.context, (vmId) => vmId.startsWith('hot-'))

  it('says what nothing owns and how many bytes, removes just that, and nothing that is young', async () => {
    const checkpointId = checkpointIds.create()
    await manager.points.create(capsuleId, checkpointId)
    const garbage = [
      `capsules/${capsuleIds.create()}`,
      `capsules/${capsuleId}/7`,
      `capsules/${capsuleId}/checkpoints/cp-1.abcd.tmp`,
      'snapshots/snap-1.abcd.tmp',
    ]
    const young = `capsules/${capsuleId}/8`
    const seed = `capsules/${capsuleId}-seed-0a1b2c3d`
    for (const dir of [...garbage, young, 'capsules/hot-1/0', seed]) await test.litter(dir, 8192)
    for (const dir of [...garbage, 'capsules/hot-1', seed]) await test.age(dir)
    const items = await collector().collect(true)
    expect(items.map(({ name }) => name).sort()).toEqual([...garbage].sort())
    expect(items.every(({ bytes }) => bytes === 8192)).toBe(true)
    expect(await collector().collect(false)).toEqual(items)
    expect(await collector().collect(false)).toEqual([])
    expect(await generations()).toEqual(['0', '8'])
    await manager.points.rollback(capsuleId, checkpointId)
    expect(record().state).toBe('running')
  })

  it('waits for no command, and takes what that has left the next time', async () => {
    const [coming, gone] = [capsuleIds.create(), capsuleIds.create()]
    for (const id of [coming, gone]) {
      await test.litter(`capsules/${id}`, 8192)
      await test.age(`capsules/${id}`)
    }
    let end = (): void => {}
    const working = manager.context.table.exclusive(coming, () => new Promise<void>((resolve) => (end = resolve)))
    expect(await collector().collect(false)).toMatchObject([{ name: `capsules/${gone}` }])
    end()
    await working
    await expect.poll(() => collector().collect(false)).toMatchObject([{ name: `capsules/${coming}` }])
  })
})

async function untilAborted(signal: AbortSignal): Promise<never> {
  return await new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(new Error('It was told to stop.')))
  })
}
