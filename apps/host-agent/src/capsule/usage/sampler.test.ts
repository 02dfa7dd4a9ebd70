import { silentLogger } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import type { Usage } from '../../host/usage/index.js'
import type { CapsuleRecord } from '../types.js'
import { UsageSampler } from './sampler.js'

const START_SEC = 1_700_000_010
const MIB = 2 ** 20

/** A host whose clock and guests the test moves. */
class World {
  nowSec = START_SEC
  elapsedMs = 1_000_000
  state = 'running'
  pid = 10
  usage: Usage | undefined = { cpuTicks: 0, rssBytes: 8 * MIB, diskBytes: MIB, net: { rxBytes: 0, txBytes: 0 } }
  paths: string[] = []
  readonly sampler = new UsageSampler({
    records: () => [this.#record()],
    read: (_guest, path) => {
      this.paths.push(path)
      return this.usage
    },
    poolPath: '/pool',
    logger: silentLogger,
    now: () => this.nowSec * 1000 + 3,
    elapsed: () => this.elapsedMs,
  })

  /** Only what the sampler looks at. */
  #record(): CapsuleRecord {
    const vm = { pid: this.pid, pidStartTicks: '1' }
    const resources = { dir: 'capsules/box/0', vm }
    return { capsuleId: 'box', state: this.state, vcpus: 2, resources } as unknown as CapsuleRecord
  }

  /** The time of a step passes, in which the guest uses some, and is looked at. */
  async step({ cpuTicks = 0, rx = 0, tx = 0, seconds = 5 } = {}): Promise<void> {
    this.nowSec += seconds
    this.elapsedMs += seconds * 1000
    if (this.usage !== undefined) {
      const { net } = this.usage
      const counted = net && { rxBytes: net.rxBytes + rx, txBytes: net.txBytes + tx }
      this.usage = { ...this.usage, cpuTicks: this.usage.cpuTicks + cpuTicks, net: counted }
    }
    await this.sampler.sample()
  }

  points() {
    return this.sampler.points(0, ['box']).get('box') ?? []
  }
}

describe('sampling', () => {
  it('tells what a capsule used between two looks, of all its vCPUs', async () => {
    const world = new World()
    await world.step({ cpuTicks: 5_000 })
    expect(world.points()).toEqual([])
    await world.step({ cpuTicks: 250, rx: 70, tx: 30 })
    expect(world.points()).toEqual([
      {
        ...{ atSec: START_SEC + 10, cpuPct: 25, memBytes: 8 * MIB, diskBytes: MIB },
        ...{ netRxBytes: 70, netTxBytes: 30 },
      },
    ])
    expect(world.paths[0]).toBe('/pool/capsules/box/0/disk.raw')
  })

  it('leaves a gap where the capsule slept, and begins anew with its next guest', async () => {
    const world = new World()
    await world.step()
    await world.step({ cpuTicks: 1 })
    world.state = 'paused'
    for (let step = 0; step < 4; step++) await world.step()
    Object.assign(world, { state: 'running', pid: 11 })
    world.usage = { cpuTicks: 3, rssBytes: MIB, diskBytes: MIB, net: { rxBytes: 1, txBytes: 1 } }
    await world.step()
    await world.step({ cpuTicks: 10 })
    expect(world.points().map(({ atSec, cpuPct }) => [atSec - START_SEC, cpuPct])).toEqual([
      [10, 0.1],
      [40, 1],
    ])
  })

  it('never tells of less than nothing: counters that step back begin anew', async () => {
    const world = new World()
    await world.step({ cpuTicks: 900, rx: 900 })
    await world.step({ cpuTicks: -400 })
    await world.step({ cpuTicks: 100, rx: -800 })
    await world.step({ cpuTicks: 100, rx: 5 })
    expect(world.points().map(({ cpuPct, netRxBytes }) => [cpuPct, netRxBytes])).toEqual([
      [10, undefined],
      [10, 5],
    ])
  })

  it('never tells of more than all vCPUs, whatever the engine used beside them, nor of more after a stall', async () => {
    const world = new World()
    await world.step()
    await world.step({ cpuTicks: 1_100 })
    await world.step({ cpuTicks: 6_000, seconds: 60 })
    expect(world.points().map(({ cpuPct }) => cpuPct)).toEqual([100, 50])
  })

  it('looks once at each step, and passes by a guest that is just gone', async () => {
    const world = new World()
    await world.step()
    await world.step()
    await world.sampler.sample()
    world.usage = undefined
    await world.step()
    expect(world.points()).toHaveLength(1)
  })

  it('hands out whole windows to collectors, from where they are', async () => {
    const world = new World()
    expect(world.sampler.untilSec).toBe(0)
    for (let step = 0; step < 8; step++) await world.step({ cpuTicks: 1 })
    const { untilSec } = world.sampler
    expect([untilSec % 15, untilSec <= world.nowSec, world.nowSec - untilSec < 15]).toEqual([0, true, true])
    const times = (fromSec: number, ids?: string[]) =>
      (world.sampler.points(fromSec, ids).get('box') ?? []).map(({ atSec }) => atSec)
    expect(times(0).every((atSec) => atSec < untilSec)).toBe(true)
    expect([...times(0), ...times(untilSec, ['box'])]).toEqual(times(0, ['box']))
    expect(times(untilSec)).toEqual([])
    expect(times(START_SEC + 15)[0]).toBe(START_SEC + 15)
  })

  it('keeps ten minutes, and nothing of a capsule that has not run since', async () => {
    const world = new World()
    for (let step = 0; step < 200; step++) await world.step()
    expect(world.points()).toHaveLength(120)
    world.state = 'paused'
    for (let step = 0; step < 60; step++) await world.step()
    expect(world.points()).toHaveLength(60)
    for (let step = 0; step < 61; step++) await world.step()
    expect(world.sampler.points(0)).toEqual(new Map())
  })
})
