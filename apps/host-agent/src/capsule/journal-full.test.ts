import { renameSync, writeFileSync } from 'node:fs'
import { readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { checkpointIds } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { nothing, TestMachine } from '../testing/test-machine.js'
import type { CapsuleManager } from './manager.js'
import type { CapsuleRecord } from './types.js'

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

function record(): CapsuleRecord {
  const found = manager.get(capsuleId)
  if (found === undefined) throw new Error('The capsule is on the host.')
  return found
}

const dir = (): string => join(test.dir, 'journal')

/** From `step` on nothing can be written to the journal. */
function fillAt(step: string): void {
  test.reach = (reached) => {
    if (reached !== step) return
    test.reach = () => {}
    renameSync(dir(), `${dir()}.full`)
    writeFileSync(dir(), '')
  }
}

async function makeRoom(): Promise<void> {
  await rm(dir())
  await rename(`${dir()}.full`, dir())
}

const untilWritten = async (state: CapsuleRecord['state']): Promise<true> =>
  await test.until(async () => {
    const written: CapsuleRecord = JSON.parse(await readFile(join(dir(), `${capsuleId}.json`), 'utf8'))
    return written.state === state ? true : undefined
  })

const recall = async (): Promise<unknown> => (await test.guestOf(record()).readRam()).nonce

async function expectAllWorks(): Promise<void> {
  await manager.pause(capsuleId, 'request')
  await manager.resume(capsuleId)
  expect(await recall()).toBe('kept')
  await manager.destroyAll()
  expect(await test.leftovers()).toEqual(nothing)
}

describe('a journal that cannot be written', () => {
  beforeEach(async () => await test.guestOf(record()).writeRam({ nonce: 'kept' }))

  it('fails a pause, and the capsule runs on; the journal says so as soon as it can', async () => {
    fillAt('pause:committed')
    await expect(manager.pause(capsuleId, 'request')).rejects.toMatchObject({ code: 'ENOTDIR' })
    expect(record().state).toBe('running')
    expect(test.guestOf(record()).state).toBe('running')
    expect(await recall()).toBe('kept')
    await expect(manager.pause(capsuleId, 'request')).rejects.toMatchObject({ code: 'ENOTDIR' })
    expect(record().state).toBe('running')
    await makeRoom()
    await untilWritten('running')
    await expectAllWorks()
  })

  it('lets a host agent that starts meanwhile come to the same', async () => {
    fillAt('pause:committed')
    await expect(manager.pause(capsuleId, 'request')).rejects.toThrow()
    await makeRoom()
    await manager.detach()
    manager = (await test.start()).manager
    expect(record().state).toBe('running')
    await expectAllWorks()
  })

  it('fails a resume, and the capsule stays paused', async () => {
    await manager.pause(capsuleId, 'request')
    fillAt('resume:restored')
    await expect(manager.resume(capsuleId)).rejects.toMatchObject({ code: 'ENOTDIR' })
    expect(record().state).toBe('paused')
    await makeRoom()
    await untilWritten('paused')
    await manager.resume(capsuleId)
    await expectAllWorks()
  })

  for (const durable of [false, true]) {
    it(`does not take back a resume ${durable ? 'of a durable state ' : ''}whose guest runs already`, async () => {
      await manager.pause(capsuleId, 'request')
      if (durable) await test.until(() => record().durableAtMs)
      fillAt(durable ? 'resume:switched' : 'resume:retracted')
      await manager.resume(capsuleId)
      expect(record().state).toBe('running')
      expect(await recall()).toBe('kept')
      await makeRoom()
      await untilWritten('running')
      await expectAllWorks()
    })
  }

  describe('in a rollback', () => {
    const checkpointId = checkpointIds.create()
    const rollback = async () => await manager.points.rollback(capsuleId, checkpointId)
    const die = async () => {
      test.guestOf(record()).end('guest_panic')
      await test.until(() => (record().state === 'error' ? true : undefined))
    }

    beforeEach(async () => {
      await manager.points.create(capsuleId, checkpointId)
      await test.guestOf(record()).writeRam({ nonce: 'newer' })
    })

    it('lets the capsule run on', async () => {
      fillAt('rollback:restored')
      await expect(rollback()).rejects.toMatchObject({ code: 'ENOTDIR' })
      expect(record()).toMatchObject({ state: 'running', files: 0, other: undefined })
      expect(test.guestOf(record()).state).toBe('running')
      expect(await recall()).toBe('newer')
      await makeRoom()
      await untilWritten('running')
      await rollback()
      await expectAllWorks()
    })

    it('leaves a capsule ended whose guest had ended', async () => {
      await die()
      fillAt('rollback:restored')
      await expect(rollback()).rejects.toMatchObject({ code: 'ENOTDIR' })
      expect(record()).toMatchObject({ state: 'error', files: 0, exit: { cause: 'guest_panic' }, other: undefined })
      await makeRoom()
      await untilWritten('error')
      await rollback()
      await expectAllWorks()
    })

    for (const hadEnded of [false, true]) {
      it(`does not take it back once the next guest runs${hadEnded ? ', nor where the last had ended' : ''}`, async () => {
        if (hadEnded) await die()
        fillAt('rollback:switched')
        expect(await rollback()).toMatchObject({ state: 'running', files: 1 })
        expect(await recall()).toBe('kept')
        await makeRoom()
        await untilWritten('running')
        await expectAllWorks()
      })
    }
  })

  it('knows that a guest has ended', async () => {
    fillAt('never')
    test.reach('never')
    test.guestOf(record()).end('guest_panic')
    await test.until(() => (record().state === 'error' ? true : undefined))
    await makeRoom()
    await untilWritten('error')
    await manager.destroyAll()
    expect(await test.leftovers()).toEqual(nothing)
  })
})
