import { renameSync, writeFileSync } from 'node:fs'
import { copyFile, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { checkpointIds } from '@wrenn/base'
import type { FakeVmGuest } from '@wrenn/vmm'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { nothing, TestMachine } from '../../testing/test-machine.js'
import type { CapsuleManager } from '../manager.js'
import type { CapsuleRecord } from '../types.js'

/** What an engine does when it is asked to stop or let run a guest. In `hangs` the host agent dies meanwhile. */
type Answer = 'obeys' | 'refuses' | 'hangs'

interface Case {
  /** The guest had ended by itself before the rollback. */
  readonly hadEnded: boolean
  readonly stopLast: Exclude<Answer, 'hangs'>
  readonly runNext: Answer
  readonly runLast: Answer
  /** From where on nothing can be written to the journal. */
  readonly fullFrom: 'never' | 'rollback:begun' | 'rollback:restored' | 'rollback:switched' | 'run next'
}

const cases: Case[] = []
for (const hadEnded of [false, true]) {
  for (const stopLast of hadEnded ? (['obeys'] as const) : (['obeys', 'refuses'] as const)) {
    for (const runNext of ['obeys', 'refuses', 'hangs'] as const) {
      for (const runLast of hadEnded ? (['obeys'] as const) : (['obeys', 'refuses', 'hangs'] as const)) {
        for (const fullFrom of [
          'never',
          'rollback:begun',
          'rollback:restored',
          'rollback:switched',
          'run next',
        ] as const) {
          cases.push({ hadEnded, stopLast, runNext, runLast, fullFrom })
        }
      }
    }
  }
}

let test: TestMachine
let manager: CapsuleManager
let capsuleId: string
const checkpointId = checkpointIds.create()

beforeEach(async () => {
  test = await TestMachine.create()
  written = test.journalDir
  const started = await test.startWithCapsule()
  manager = started.manager
  capsuleId = started.capsuleId
  await test.guestOf(record()).writeRam({ nonce: 'kept' })
  await manager.points.create(capsuleId, checkpointId)
  await manager.context.flusher.close() // it would go on after the death of its host agent
  await test.guestOf(record()).writeRam({ nonce: 'newer' })
})
afterEach(async () => {
  await test[Symbol.asyncDispose]()
})

function record(): CapsuleRecord {
  const found = manager.get(capsuleId)
  if (found === undefined) throw new Error('The capsule is on the host.')
  return found
}

/** Where what was last written to the journal is. */
let written: string

function fillJournal(): void {
  if (written !== test.journalDir) return
  written = `${test.journalDir}.full`
  renameSync(test.journalDir, written)
  writeFileSync(test.journalDir, '')
}

const living = (): FakeVmGuest[] => [...test.vms.guests.values()].filter(({ exit }) => exit === undefined)

/** Lets a rollback meet its faults. @returns how it ended, as far as somebody was told */
async function meet({ stopLast, runNext, runLast, fullFrom }: Case): Promise<'done' | 'undone' | 'died'> {
  let isDead: (how: 'died') => void
  const died = new Promise<'died'>((resolve) => {
    isDead = resolve
  })
  const answer = async (how: Answer): Promise<void> => {
    if (how === 'refuses') throw new Error('The vCPUs refuse.')
    if (how === 'obeys') return
    isDead('died')
    await new Promise(() => {}) // the host agent is no more
  }
  const [last] = living()
  if (last !== undefined) {
    last.faults.pause = async () => await answer(stopLast)
    last.faults.resume = async () => await answer(runLast)
  }
  test.reach = (step) => {
    if (step === fullFrom) fillJournal()
    if (step !== 'rollback:restored') return
    const next = living().find((guest) => guest !== last)
    if (next === undefined) throw new Error('The next guest was restored.')
    next.faults.resume = async () => {
      if (fullFrom === 'run next') fillJournal()
      await answer(runNext)
    }
  }
  const ended = manager.points.rollback(capsuleId, checkpointId).then(
    () => 'done' as const,
    () => 'undone' as const,
  )
  return await Promise.race([ended, died])
}

/**
 * Another host agent starts where the last one stopped, with room for its journal and an engine that obeys. It has the journal to
 * itself: the last one is dead, and what goes on of it in this process writes nothing any more.
 */
async function startAgain(): Promise<void> {
  test.reach = () => {}
  const next = join(test.dir, 'journal-next')
  await mkdir(next)
  await copyFile(join(written, `${capsuleId}.json`), join(next, `${capsuleId}.json`))
  test.journalDir = next
  for (const guest of living()) {
    delete guest.faults.pause
    delete guest.faults.resume
  }
  manager = (await test.start()).manager
}

async function expectAllWorks(nonce: string): Promise<void> {
  expect(await test.guestOf(record()).readRam()).toEqual({ nonce })
  expect(test.guestOf(record()).state).toBe('running')
  expect(living()).toHaveLength(1)
  await manager.pause(capsuleId, 'request')
  await manager.resume(capsuleId)
  expect(await test.guestOf(record()).readRam()).toEqual({ nonce })
  await manager.points.rollback(capsuleId, checkpointId)
  expect(await test.guestOf(record()).readRam()).toEqual({ nonce: 'kept' })
}

describe('a rollback that meets faults, and then the death of its host agent', () => {
  for (const one of cases) {
    const { hadEnded, stopLast, runNext, runLast, fullFrom } = one
    const last = hadEnded ? 'last guest ended' : `last guest's vCPUs stop: ${stopLast}, run again: ${runLast}`
    it(`keeps the right guest; ${last}; next guest's vCPUs run: ${runNext}; journal full from: ${fullFrom}`, async () => {
      if (hadEnded) {
        test.guestOf(record()).end('guest_panic')
        await test.until(() => (record().state === 'error' ? true : undefined))
      }
      const told = await meet(one)
      await startAgain()
      const { state, exit } = record()
      const isBack = state === 'running' && (await test.guestOf(record()).readRam()).nonce === 'kept'
      if (told === 'done') expect(isBack).toBe(true)
      if (told === 'undone') expect(isBack).toBe(false)
      if (isBack) await expectAllWorks('kept')
      else if (!hadEnded) await expectAllWorks('newer')
      else {
        expect([state, exit?.cause, living()]).toEqual(['error', 'guest_panic', []])
        await manager.points.rollback(capsuleId, checkpointId)
        await expectAllWorks('kept')
      }
      await manager.destroyAll()
      expect(await test.leftovers()).toEqual(nothing)
    })
  }
})
