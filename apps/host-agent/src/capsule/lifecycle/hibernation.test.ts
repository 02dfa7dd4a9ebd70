import { access, copyFile, cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, type CapsuleId, capsuleIds, checkpointIds } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { LAYER, nothing, TestMachine } from '../../testing/test-machine.js'
import type { CapsuleManager } from '../manager.js'
import type { OpenVault } from '../state/vault.js'
import { needsStored } from './hibernation.js'

const key = { id: 'team-1-key', key: Buffer.alloc(32, 7) }
const stateId = 'state-1'
const wish = { bytes: 10, attempt: 3 }
const never = new AbortController().signal
const WAIT = { timeout: 10_000 }

function fail(): never {
  throw new Error('The capsule is on record.')
}

let home: TestMachine
let other: TestMachine
const forks: TestMachine[] = []
/** Called when a state is about to be whole in the store. */
let beforeWhole: () => Promise<void>

beforeEach(async () => {
  home = await TestMachine.create()
  other = await TestMachine.create()
  beforeWhole = async () => {}
  home.openVault = other.openVault = openVault(join(home.dir, 'store'))
})
afterEach(async () => {
  for (const machine of [home, other, ...forks.splice(0)]) await machine[Symbol.asyncDispose]()
})

/** What the store promises: under an id there is all or nothing. */
function openVault(root: string): OpenVault {
  return async () => ({
    has: async (id) =>
      await access(join(root, id)).then(
        () => true,
        () => false,
      ),
    save: async (id, files, { signal }) => {
      const beside = join(root, `${id}.part`)
      await mkdir(beside, { recursive: true })
      for (const { name, path } of files) await copyFile(path, join(beside, name))
      if (id === stateId) await beforeWhole()
      signal.throwIfAborted()
      await rm(join(root, id), { recursive: true, force: true })
      await cp(beside, join(root, id), { recursive: true })
      return { bytes: 10, sentBytes: 5 }
    },
    load: async (id, folder) => {
      await cp(join(root, id), folder, { recursive: true })
      return { fetchedBytes: 10 }
    },
  })
}

/** A paused capsule with something in its memory. */
async function paused() {
  const { manager, capsuleId } = await home.startWithCapsule()
  await home.guestOf(manager.get(capsuleId) ?? { resources: undefined }).writeRam({ nonce: 'kept' })
  await manager.pause(capsuleId, 'request')
  return { manager, capsuleId }
}

const ramOf = async (machine: TestMachine, manager: CapsuleManager, capsuleId: string) =>
  await machine.guestOf(manager.get(capsuleId) ?? { resources: undefined }).readRam()

describe('a paused capsule', () => {
  it('goes on on another host with its memory, its name and its policy, and nothing of it stays', async () => {
    const { manager, capsuleId } = await paused()
    const stored = await manager.store({ capsuleId, stateId, key }, [], never)
    expect(stored).toMatchObject({ bytes: 10, sentBytes: 10, layers: [LAYER] })
    expect(await manager.free(capsuleId, stateId, 0)).toBe(true)
    expect(await manager.free(capsuleId, stateId, 0)).toBe(false)
    expect(await home.leftovers()).toEqual(nothing)

    await rm(join(other.dir, 'pool/layers', LAYER))
    const { manager: next, hotPool } = await other.start()
    const { record } = await next.fetch({ capsuleId, stateId, key }, wish, never)
    const { hostname, egress, secret, template, vcpus, pausedAtMs, durableAtMs } = stored.record
    expect(record).toMatchObject({ hostname, egress, secret, template, vcpus, pausedAtMs, state: 'paused' })
    expect(record.durableAtMs).toBe(durableAtMs)
    await next.resume(capsuleId)
    expect(await ramOf(other, next, capsuleId)).toEqual({ nonce: 'kept' })
    expect(await readdir(join(other.dir, 'pool/layers'))).toEqual([LAYER])
    await hotPool.close()
    await next.destroyAll()
    expect(await other.leftovers()).toEqual(nothing)
  })

  it('is stored and fetched once, however often somebody asks', async () => {
    const { manager, capsuleId } = await paused()
    const ref = { capsuleId, stateId, key }
    await manager.store(ref, [], never)
    beforeWhole = async () => {
      throw new Error('it was stored before')
    }
    await manager.store(ref, [], never)
    expect((await manager.fetch(ref, wish, never)).fetchedBytes).toBe(0)
    const { manager: next } = await other.start()
    await next.fetch(ref, wish, never)
    await next.resume(capsuleId)
    expect((await next.fetch(ref, wish, never)).record.state).toBe('running')
  })

  it('says nothing of its fetch to a copy, which never was in the store', async () => {
    const { manager, capsuleId } = await paused()
    await manager.store({ capsuleId, stateId, key }, [], never)
    const { manager: next } = await other.start()
    await next.fetch({ capsuleId, stateId, key }, wish, never)
    const copyId = capsuleIds.create()
    await next.fork(capsuleId, [{ capsuleId: copyId, hostname: 'copy', generation: 1, envs: {} }])
    const copy = next.get(copyId)
    expect([copy?.state, copy?.wakeAttempt, copy?.stored]).toEqual(['running', undefined, undefined])
  })

  it('is known to come of the latest fetch, whatever is stored of it afterwards', async () => {
    const { manager, capsuleId } = await paused()
    const ref = { capsuleId, stateId, key }
    const told = (of: CapsuleManager) => of.get(capsuleId)?.wakeAttempt
    await manager.store(ref, [], never)
    expect(told(manager)).toBeUndefined()
    await manager.fetch(ref, wish, never)
    expect(told(manager)).toBe(3)
    const { manager: next } = await other.start()
    await next.fetch(ref, { ...wish, attempt: 5 }, never)
    await next.resume(capsuleId)
    await next.pause(capsuleId, 'request')
    await next.store({ ...ref, stateId: 'state-2' }, [], never)
    expect(told(next)).toBe(5)
  })

  it('is stored with its layers, and again, when the store has less than it was said to have', async () => {
    const { manager, capsuleId } = await paused()
    const ref = { capsuleId, stateId, key }
    await manager.store(ref, [LAYER], never)
    expect((await readdir(join(home.dir, 'store'))).filter((name) => !name.endsWith('.part')).sort()).toEqual(
      [`layer-${LAYER}`, stateId].sort(),
    )
    await rm(join(home.dir, 'store', stateId), { recursive: true })
    await manager.store(ref, [LAYER], never)
    expect(await readdir(join(home.dir, 'store'))).toContain(stateId)
  })

  it('is not stored on a layer whose content is not what it is named after', async () => {
    const { manager, capsuleId } = await paused()
    const path = join(home.dir, 'pool/layers', LAYER)
    await rm(path)
    await writeFile(path, 'rotten')
    const stored = manager.store({ capsuleId, stateId, key }, [], never)
    await expect(stored).rejects.toMatchObject({ code: 'snapshot_damaged', message: expect.stringContaining(LAYER) })
    expect(await readdir(join(home.dir, 'store')).catch(() => [])).toEqual([])
    expect(manager.get(capsuleId)?.state).toBe('paused')
  })

  it('that comes back is not freed by who was told to before it came, nor by an attempt that was overtaken', async () => {
    const { manager, capsuleId } = await paused()
    const ref = { capsuleId, stateId, key }
    await manager.store(ref, [], never)
    // It comes back to where it was: nothing need be fetched.
    expect((await manager.fetch(ref, wish, never)).fetchedBytes).toBe(0)
    expect(await manager.free(capsuleId, stateId, 0)).toBe(false)
    await manager.fetch(ref, { ...wish, attempt: 7 }, never)
    await expect(manager.fetch(ref, wish, never)).rejects.toMatchObject({ code: 'conflict' })
    expect(await manager.free(capsuleId, stateId, wish.attempt)).toBe(false)
    expect(manager.get(capsuleId)?.state).toBe('paused')
    expect(await manager.free(capsuleId, stateId, 7)).toBe(true)
    // An attempt that ran is the capsule.
    const { manager: next } = await other.start()
    await next.fetch(ref, wish, never)
    await next.resume(capsuleId)
    await next.pause(capsuleId, 'request')
    expect(await next.free(capsuleId, stateId, wish.attempt)).toBe(false)
  })

  it('that is resumed while it is stored goes on, and is not freed', async () => {
    const { manager, capsuleId } = await paused()
    beforeWhole = async () => void (await manager.resume(capsuleId))
    const stored = manager.store({ capsuleId, stateId, key }, [], never)
    await expect(stored).rejects.toMatchObject({ code: 'conflict' })
    expect(await manager.free(capsuleId, stateId, 0)).toBe(false)
    expect(await ramOf(home, manager, capsuleId)).toEqual({ nonce: 'kept' })
  })

  it('is stored by one call at a time', async () => {
    const { manager, capsuleId } = await paused()
    let saves = 0
    beforeWhole = async () => void saves++
    const store = async () => await manager.store({ capsuleId, stateId, key }, [], never)
    await Promise.all([store(), store()])
    expect(saves).toBe(1)
  })

  it('that was resumed since it was stored is not freed, paused again or not', async () => {
    const { manager, capsuleId } = await paused()
    await manager.store({ capsuleId, stateId, key }, [], never)
    await manager.resume(capsuleId)
    expect(await manager.free(capsuleId, stateId, 0)).toBe(false)
    await manager.pause(capsuleId, 'request')
    expect(await manager.free(capsuleId, stateId, 0)).toBe(false)
    await manager.store({ capsuleId, stateId: 'state-2', key }, [LAYER], never)
    expect(await manager.free(capsuleId, stateId, 0)).toBe(false)
    expect(await manager.free(capsuleId, 'state-2', 0)).toBe(true)
  })

  it('with a checkpoint is refused, and so is a running one', async () => {
    const { manager, capsuleId } = await home.startWithCapsule()
    const store = async () => await manager.store({ capsuleId, stateId, key }, [], never)
    await expect(store()).rejects.toMatchObject({ code: 'invalid_state' })
    await manager.pause(capsuleId, 'request')
    await manager.points.create(capsuleId, checkpointIds.create())
    await expect(store()).rejects.toThrow('has checkpoints, which stay on their host: delete them first')
  })

  it('stays as it was when the store fails, or its flush does', async () => {
    const { manager, capsuleId } = await paused()
    const failing = [
      () => {
        beforeWhole = async () => {
          throw new AppError('disk_full', 'The store is full.')
        }
      },
      () => {
        home.makeDurable = async () => {
          throw new AppError('disk_full', 'There is no room.')
        }
      },
    ]
    failing[1]?.()
    await expect(manager.store({ capsuleId, stateId, key }, [], never)).rejects.toThrow('There is no room.')
    home.makeDurable = async () => ({})
    failing[0]?.()
    await expect(manager.store({ capsuleId, stateId, key }, [], never)).rejects.toThrow('The store is full.')
    await manager.resume(capsuleId)
    expect(await ramOf(home, manager, capsuleId)).toEqual({ nonce: 'kept' })
  })

  it('that is destroyed while it is fetched leaves nothing', async () => {
    const { manager, capsuleId } = await paused()
    await manager.store({ capsuleId, stateId, key }, [], never)
    const { manager: next } = await other.start()
    other.reach = (step) => {
      if (step === 'fetch:loaded') void next.destroy(capsuleId)
    }
    await expect(next.fetch({ capsuleId, stateId, key }, wish, never)).rejects.toMatchObject({ code: 'conflict' })
    expect(await next.destroy(capsuleId)).toBe(false)
    expect(await other.leftovers()).toEqual(nothing)
  })
})

describe('a stored state', () => {
  it('whose memory cannot be loaded here comes for its disk alone', async () => {
    const { manager, capsuleId } = await paused()
    const ref = { capsuleId, stateId, key }
    await manager.store(ref, [], never)
    const path = join(home.dir, 'store', stateId, 'manifest.json')
    await writeFile(path, (await readFile(path, 'utf8')).replace(/"engine":"[^"]*"/, '"engine":"another"'))
    const { manager: next } = await other.start()
    await expect(next.fetch(ref, wish, never)).rejects.toMatchObject({ code: 'state_not_loadable' })
    const { record } = await next.fetch(ref, { ...wish, fromDisk: true }, never)
    expect(record.state).toBe('paused')
    await expect(next.resume(capsuleId)).rejects.toMatchObject({ code: 'state_not_loadable' })
    expect(next.get(capsuleId)?.state).toBe('paused')
  })

  /** What is in the store, changed as somebody who has taken over its host could. */
  async function changed(name: string, from: string, to: string) {
    const { manager, capsuleId } = await paused()
    await manager.store({ capsuleId, stateId, key }, [], never)
    const path = join(home.dir, 'store', stateId, name)
    const text = await readFile(path, 'utf8')
    expect(text).toContain(from)
    await writeFile(path, text.replaceAll(from, to))
    const { manager: next } = await other.start()
    return { next, capsuleId }
  }

  for (const [what, name, from, to] of [
    ['names a file that is no layer', 'manifest.json', `layers/${LAYER}`, 'layers/../../../etc/shadow'],
    ['is of another capsule', 'capsule.json', '"capsuleId":"cl-', '"capsuleId":"cx-'],
    ['has a damaged device state', 'state', 'fake', 'fade'],
    ['has no memory', 'manifest.json', '"memoryMib":1', '"memoryMib":2'],
  ] as const) {
    it(`that ${what} is refused, and nothing of it stays`, async () => {
      const { next, capsuleId } = await changed(name, from, to)
      const fetched = next.fetch({ capsuleId, stateId, key }, wish, never)
      await expect(fetched).rejects.toMatchObject({ code: 'snapshot_damaged' })
      expect(await other.leftovers()).toEqual(nothing)
    })
  }

  it('whose layer is not what its name says is refused', async () => {
    const { manager, capsuleId } = await paused()
    await manager.store({ capsuleId, stateId, key }, [], never)
    await writeFile(join(home.dir, 'store', `layer-${LAYER}`, LAYER), 'poison')
    await rm(join(other.dir, 'pool/layers', LAYER))
    const { manager: next } = await other.start()
    const fetched = next.fetch({ capsuleId, stateId, key }, wish, never)
    await expect(fetched).rejects.toThrow('has another content')
    expect(await readdir(join(other.dir, 'pool/layers'))).not.toContain(LAYER)
    expect(await other.leftovers()).toEqual(nothing)
  })
})

describe('a host agent that dies', () => {
  /** Takes up what a process that dies at `step` of `run` leaves. */
  async function diedAt(machine: TestMachine, step: string, run: () => Promise<unknown>): Promise<TestMachine> {
    let left: TestMachine | undefined
    machine.reach = (reached) => {
      if (reached === step) left = machine.fork()
    }
    await run()
    if (left === undefined) throw new Error(`${step} was not reached`)
    forks.push(left)
    left.openVault = home.openVault
    return left
  }

  for (const step of ['store:begun', 'store:durable', 'store:saved', 'store:noted']) {
    it(`at ${step} has the capsule, which can be stored again and go on`, async () => {
      const { manager, capsuleId } = await paused()
      const left = await diedAt(home, step, () => manager.store({ capsuleId, stateId, key }, [], never))
      const { manager: next } = await left.start()
      expect(await next.free(capsuleId, stateId, 0)).toBe(step === 'store:noted')
      if (step === 'store:noted') return
      await next.store({ capsuleId, stateId, key }, [], never)
      await next.resume(capsuleId)
      expect(await ramOf(left, next, capsuleId)).toEqual({ nonce: 'kept' })
    })
  }

  for (const step of ['fetch:begun', 'fetch:loaded', 'fetch:adopted', 'fetch:placed', 'fetch:noted']) {
    it(`at ${step} fetches the state when it is asked again`, async () => {
      const { manager, capsuleId } = await paused()
      await manager.store({ capsuleId, stateId, key }, [], never)
      const { manager: first } = await other.start()
      const left = await diedAt(other, step, () => first.fetch({ capsuleId, stateId, key }, wish, never))
      const { manager: next } = await left.start()
      expect(next.get(capsuleId)?.state).toBe(step === 'fetch:noted' ? 'paused' : undefined)
      await next.fetch({ capsuleId, stateId, key }, wish, never)
      await next.resume(capsuleId)
      expect(await ramOf(left, next, capsuleId)).toEqual({ nonce: 'kept' })
    })
  }

  for (const step of ['free:begun', 'destroy:begun', 'destroy:released', 'destroy:removed']) {
    it(`at ${step} of what it was told to free has freed it, or can`, async () => {
      const { manager, capsuleId } = await paused()
      await manager.store({ capsuleId, stateId, key }, [], never)
      const left = await diedAt(home, step, () => manager.free(capsuleId, stateId, 0))
      const { manager: next } = await left.start()
      await next.free(capsuleId, stateId, 0)
      expect(await left.leftovers()).toEqual(nothing)
    })
  }
})

describe('a capsule that runs before its memory is whole', () => {
  const lazyWish = { ...wish, mayLoadLazily: true }
  const ref = (capsuleId: CapsuleId) => ({ capsuleId, stateId, key })

  /** It runs on the other host, and nothing of it is durable there. */
  async function woken() {
    const { manager, capsuleId } = await paused()
    await manager.store(ref(capsuleId), [], never)
    const open = openVault(join(home.dir, 'store'))
    other.openVault = async (of) => {
      const vault = await open(of)
      return { ...vault, lazily: other.loads.lazily(vault.load) }
    }
    const { manager: next } = await other.start()
    await next.fetch(ref(capsuleId), lazyWish, never)
    await next.resume(capsuleId)
    return { next, capsuleId }
  }
  const said = (manager: CapsuleManager, capsuleId: string) => {
    const record = manager.get(capsuleId) ?? fail()
    return { loadedFrom: record.loadedFrom, isNeeded: needsStored(record) }
  }
  const needed = { loadedFrom: stateId, isNeeded: true }
  const isDurable = async (manager: CapsuleManager, capsuleId: string) =>
    await vi.waitFor(() => expect(manager.get(capsuleId)?.durableAtMs).toBeDefined(), WAIT)

  it('says how it came, and needs what is in the store until it was paused and is durable', async () => {
    const { next, capsuleId } = await woken()
    const steps = next.get(capsuleId)?.lifecycleTimings?.map(({ step }) => step)
    expect(steps?.[0]).toBe('fetch_lazily')
    expect(said(next, capsuleId)).toEqual(needed)
    await next.pause(capsuleId, 'request')
    expect(said(next, capsuleId)).toEqual(needed)
    other.loads.outcome = 'whole'
    await isDurable(next, capsuleId)
    expect(other.loads.finished).toEqual([join(other.dir, 'pool/capsules', capsuleId, '0')])
    expect(said(next, capsuleId)).toEqual({ ...needed, isNeeded: false })
    await next.resume(capsuleId)
    expect(said(next, capsuleId)).toEqual({ ...needed, isNeeded: false })
    expect(await ramOf(other, next, capsuleId)).toEqual({ nonce: 'kept' })
  })

  it('goes on at once from a pause in the middle of the load, asked for as before', async () => {
    const { next, capsuleId } = await woken()
    await other.guestOf(next.get(capsuleId) ?? fail()).writeRam({ nonce: 'later' })
    await next.pause(capsuleId, 'request')
    await next.fetch(ref(capsuleId), { ...lazyWish, attempt: 9 }, never)
    await next.resume(capsuleId)
    expect(await ramOf(other, next, capsuleId)).toEqual({ nonce: 'later' })
    expect(other.loads.finished).toEqual([])
  })

  it('is copied only when its memory is here', async () => {
    const { next, capsuleId } = await woken()
    const copy = { capsuleId: capsuleIds.create(), hostname: 'copy', generation: 1, envs: {} }
    const forked = next.fork(capsuleId, [copy])
    other.loads.outcome = 'whole'
    await forked
    expect(await ramOf(other, next, copy.capsuleId)).toEqual({ nonce: 'kept' })
    other.loads.outcome = 'broken'
    await expect(next.fork(capsuleId, [{ ...copy, capsuleId: capsuleIds.create() }])).rejects.toMatchObject({
      code: 'snapshot_damaged',
    })
  })

  it('is never believed when the load broke, and is fetched again, whole', async () => {
    const { next, capsuleId } = await woken()
    await other.guestOf(next.get(capsuleId) ?? fail()).writeRam({ nonce: 'lost' })
    await next.pause(capsuleId, 'request')
    other.loads.outcome = 'broken'
    await expect(next.resume(capsuleId)).rejects.toMatchObject({ code: 'snapshot_damaged' })
    await next.fetch(ref(capsuleId), { ...lazyWish, attempt: 9 }, never)
    await next.resume(capsuleId)
    expect(await ramOf(other, next, capsuleId)).toEqual({ nonce: 'kept' })
    const { notice, files } = next.get(capsuleId) ?? fail()
    expect(notice).toContain('(It broke in a test)')
    expect(await readdir(join(other.dir, 'pool/capsules', capsuleId))).not.toContain('0')
    expect(files).toBeGreaterThan(0)
  })

  it('is ended with the reason when its memory will never be whole', async () => {
    const { next, capsuleId } = await woken()
    other.loads.outcome = 'broken'
    await vi.waitFor(() => expect(next.get(capsuleId)?.state).toBe('error'), WAIT)
    expect(next.get(capsuleId)?.exit).toMatchObject({ cause: 'engine_failure', message: 'It broke in a test.' })
  })

  it('goes back to the store when its guest ends, also after the host agent and the host have started again', async () => {
    const { next, capsuleId } = await woken()
    other.guestOf(next.get(capsuleId) ?? fail()).end('killed', 'The guest has ended.')
    await vi.waitFor(() => expect(next.get(capsuleId)?.state).toBe('error'), WAIT)
    const rebooted = other.fork()
    forks.push(rebooted)
    rebooted.openVault = other.openVault
    rebooted.loads.outcome = 'broken'
    for (const machine of [other, rebooted]) {
      const { manager } = machine === other ? { manager: next } : await machine.start('boot-2')
      await expect(manager.resume(capsuleId)).rejects.toMatchObject({ code: 'invalid_state' })
      expect((await manager.fetch(ref(capsuleId), { ...lazyWish, attempt: 9 }, never)).fetchedBytes).toBe(10)
      await manager.resume(capsuleId)
      expect(await ramOf(machine, manager, capsuleId)).toEqual({ nonce: 'kept' })
      expect(said(manager, capsuleId).isNeeded).toBe(false)
      await manager.destroy(capsuleId)
    }
  })

  it('is fetched whole where no loader starts, and where nobody keeps what is in the store', async () => {
    other.loads.startFails = true
    const { next, capsuleId } = await woken()
    expect(next.get(capsuleId)?.lifecycleTimings?.[0]?.step).toBe('fetch')
    expect(said(next, capsuleId)).toEqual({ loadedFrom: undefined, isNeeded: false })
    expect(await ramOf(other, next, capsuleId)).toEqual({ nonce: 'kept' })
  })
})
