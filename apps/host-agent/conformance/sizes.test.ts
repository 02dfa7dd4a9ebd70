import { randomBytes } from 'node:crypto'
import { constants, copyFile, mkdir, mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { silentLogger } from '@wrenn/base'
import { createFakeEngine, FakeMachine } from '@wrenn/vmm'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { FilePool } from '../src/capsule/machine.js'
import { type Holding, Sizes } from '../src/capsule/state/sizes.js'
import { StateStore } from '../src/capsule/state/states.js'
import { poolExtents } from '../src/host/extents/index.js'
import { closePool, openPool, type Pool } from '../src/host/pool/index.js'
import { TestMachine } from '../src/testing/test-machine.js'

const MIB = 2 ** 20

describe.skipIf(process.getuid?.() !== 0)('sizes on a real pool (needs root)', () => {
  let dir = ''
  let pool: Pool
  let sizes: Sizes
  let holdings: Holding[] = []

  beforeAll(async () => {
    dir = await mkdtemp('/tmp/wrenn-sizes-')
    pool = await openPool({ dir, sizeBytes: 3072 * MIB, logger: silentLogger })
  })
  afterAll(async () => {
    await closePool(dir)
    await rm(dir, { recursive: true, force: true })
  })
  beforeEach(async () => {
    for (const folder of ['templates', 'capsules', 'snapshots']) {
      await rm(join(pool.path, folder), { recursive: true, force: true })
      await mkdir(join(pool.path, folder))
    }
    await using test = await TestMachine.create()
    const files: FilePool = {
      ...test.machine().pool,
      path: pool.path,
      extents: async (paths) => await poolExtents(paths),
    }
    const machine = { ...test.machine(), pool: files }
    const states = new StateStore({
      pool: files,
      engine: createFakeEngine({ machine: new FakeMachine() }),
      memory: test.loads,
    })
    holdings = []
    sizes = new Sizes(machine, states, async () => holdings, silentLogger)
  })

  const hold = (name: string, capsuleId: string | undefined, isFixed: boolean, teamId = 'team'): string => {
    holdings.push({ dir: name, teamId, capsuleId, fixedSinceMs: isFixed ? 0 : undefined })
    return name
  }
  const memory = (name: string): string => join(pool.path, name, 'mem')
  const fill = async (name: string, mib: number): Promise<string> => {
    await mkdir(join(pool.path, name), { recursive: true })
    await writeFile(memory(name), randomBytes(mib * MIB))
    return name
  }
  const clone = async (from: string, to: string): Promise<string> => {
    await mkdir(dirname(memory(to)), { recursive: true })
    await copyFile(memory(from), memory(to), constants.COPYFILE_FICLONE_FORCE)
    return to
  }
  /** Writes as a guest does: what it wrote waits in the page cache. */
  const overwrite = async (name: string, mib: number): Promise<void> => {
    await using file = await open(memory(name), 'r+')
    await file.write(randomBytes(mib * MIB), 0, mib * MIB, 0)
  }
  const usage = async () => Object.fromEntries((await sizes.usage())?.map(({ teamId, bytes }) => [teamId, bytes]) ?? [])

  it('count a block once however many of a team hold it, and those of templates not', async () => {
    await fill('templates/minimal', 20)
    const capsule = hold(await clone('templates/minimal', 'capsules/one/0'), 'one', false)
    expect(await sizes.usage()).toBeUndefined()
    await sizes.measureAll()
    expect(await usage()).toEqual({ team: 0 })
    await overwrite(capsule, 8)
    await sizes.measureAll()
    expect(await usage()).toEqual({ team: 8 * MIB })
    const checkpoint = hold(await clone(capsule, 'capsules/one/checkpoints/cp'), 'one', true)
    await sizes.measureSaved(checkpoint, capsule)
    expect([await usage(), sizes.own(checkpoint)]).toEqual([{ team: 8 * MIB }, 0])
    await overwrite(capsule, 6)
    await sizes.measureAll()
    expect(await usage()).toEqual({ team: 14 * MIB })
    expect([sizes.own(checkpoint), sizes.own(capsule), sizes.family('one')]).toEqual([6 * MIB, 6 * MIB, 14 * MIB])
    const snapshot = hold(await clone(checkpoint, 'snapshots/snap'), undefined, true)
    hold(await clone(snapshot, 'capsules/two/0'), 'two', false, 'other')
    await sizes.measureAll()
    expect(await usage()).toEqual({ team: 14 * MIB, other: 8 * MIB })
    expect([sizes.own(checkpoint), sizes.own(snapshot), sizes.family('one')]).toEqual([0, 0, 14 * MIB])
  })

  it('tell at once what a deletion has freed, and read what is saved only once', async () => {
    const capsule = hold(await fill('capsules/one/0', 4), 'one', false)
    const checkpoint = hold(await clone(capsule, 'capsules/one/checkpoints/cp'), 'one', true)
    await overwrite(capsule, 4)
    await sizes.measureAll()
    expect(await usage()).toEqual({ team: 8 * MIB })
    expect(await sizes.freedBy(checkpoint)).toBe(4 * MIB)
    sizes.forget(checkpoint)
    holdings = holdings.filter(({ dir: held }) => held !== checkpoint)
    expect(await usage()).toEqual({ team: 4 * MIB })
    const saved = hold(await clone(capsule, 'capsules/one/checkpoints/next'), 'one', true)
    expect(await usage()).toEqual({ team: 4 * MIB })
    await overwrite(saved, 4) // nobody does; only to see whether it is read again
    await sizes.measureAll()
    expect(await usage()).toEqual({ team: 4 * MIB })
  })
})
