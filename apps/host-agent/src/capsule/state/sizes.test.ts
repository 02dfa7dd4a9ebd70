import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { silentLogger } from '@wrenn/base'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { TestMachine } from '../../testing/test-machine.js'
import { type Holding, Sizes } from './sizes.js'
import { StateStore } from './states.js'

let test: TestMachine
let sizes: Sizes
let holdings: Holding[]
/** Folder of the pool → where its file lies on the device. */
let places: Record<string, readonly [start: number, end: number]>

beforeEach(async () => {
  test = await TestMachine.create()
  holdings = []
  places = {}
  test.extents = async ([path = '']) => {
    const folder = Object.keys(places).find((name) => path.startsWith(`${join(test.dir, 'pool', name)}/`))
    const [start, end] = places[folder ?? ''] ?? [0, 0]
    return { starts: Float64Array.of(start), ends: Float64Array.of(end), unplacedBytes: 0, exclusiveBytes: 0 }
  }
  const machine = test.machine()
  sizes = new Sizes(machine, new StateStore(machine), async () => holdings, silentLogger)
})
afterEach(async () => {
  await test[Symbol.asyncDispose]()
})

/** A folder with a file; `capsuleId` is that of a running capsule. */
async function put(dir: string, place: readonly [number, number], capsuleId?: string): Promise<void> {
  await test.litter(dir, 1)
  places[dir] = place
  if (dir.startsWith('templates/')) return
  holdings.push({ dir, teamId: 'team', capsuleId, fixedSinceMs: capsuleId === undefined ? 0 : undefined })
}

async function remove(dir: string): Promise<void> {
  await rm(join(test.dir, 'pool', dir), { recursive: true })
  holdings = holdings.filter((holding) => holding.dir !== dir)
}

const used = async () => (await sizes.usage())?.find(({ teamId }) => teamId === 'team')?.bytes

it('go on to count the blocks of a snapshot that is removed before a capsule made from it is measured', async () => {
  await put('snapshots/snap', [0, 100])
  await sizes.measureAll()
  await put('capsules/one/0', [0, 100], 'one')
  expect(await used()).toBe(100)
  await remove('snapshots/snap')
  sizes.forget('snapshots/snap')
  expect(await used()).toBe(100)
})

it('go on to count the blocks of a capsule that is removed before its copies are measured', async () => {
  await put('capsules/one/0', [0, 100], 'one')
  await sizes.measureAll()
  await put('capsules/copy/0', [0, 80], 'copy')
  await remove('capsules/one/0')
  sizes.forgetCapsule('one')
  expect(await used()).toBe(80)
})

it('count the blocks of a template for those who hold them when it is removed, at once', async () => {
  await put('templates/minimal', [0, 50])
  await put('snapshots/snap', [0, 60])
  await put('capsules/one/0', [20, 100], 'one')
  await sizes.measureAll()
  expect(await used()).toBe(50)
  await remove('templates/minimal')
  expect(await used()).toBe(100)
  await sizes.measureAll()
  expect([await used(), sizes.own('snapshots/snap'), sizes.family('one')]).toEqual([100, 20, 80])
})

it('do not count blocks that a template made since holds, too', async () => {
  await put('snapshots/snap', [0, 60])
  await sizes.measureAll()
  expect(await used()).toBe(60)
  await put('templates/minimal', [0, 50])
  await sizes.measureAll()
  expect(await used()).toBe(10)
})
