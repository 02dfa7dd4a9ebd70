import { AppError, silentLogger } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import type { MemoryReading } from './readings.js'
import type { PressureCapsule } from './victims.js'
import { PressureWatch, type PressureWatchOptions } from './watch.js'

const MIB = 2 ** 20

/** A host whose capsules hold all memory that is not free; pausing one gives its memory back. */
class FakeHost {
  now = 0
  availableBytes = 4096 * MIB
  poolFreeBytes = 100_000 * MIB
  psi: number | undefined
  running: PressureCapsule[] = []
  readonly paused: string[] = []
  readonly stubborn = new Set<string>()

  add(id: string, memoryMib: number, overrides: Partial<PressureCapsule> = {}): this {
    const idle = { id, idleMs: 0, reasons: [], memoryBytes: memoryMib * MIB, grownBytesPerSec: 0 }
    this.running.push({ ...idle, ...overrides })
    return this
  }

  watch(options: Partial<PressureWatchOptions> = {}): PressureWatch {
    return new PressureWatch({
      readMemory: async (): Promise<MemoryReading> => ({
        totalBytes: 16_384 * MIB,
        availableBytes: this.availableBytes,
        ...(this.psi === undefined ? {} : { psiFullAvg10: this.psi }),
      }),
      poolUsage: async () => ({ totalBytes: 200_000 * MIB, freeBytes: this.poolFreeBytes }),
      capsules: () => this.running,
      pause: async (id, reason) => this.#pause(id, reason),
      logger: silentLogger,
      limits: { memoryReserveBytes: 1000 * MIB, poolReserveBytes: 1000 * MIB },
      now: () => this.now,
      ...options,
    })
  }

  #pause(id: string, reason: string): void {
    if (this.stubborn.has(id)) throw new AppError('engine_failure', 'It does not stop.')
    const capsule = this.running.find((one) => one.id === id)
    this.running = this.running.filter((one) => one.id !== id)
    this.availableBytes += capsule?.memoryBytes ?? 0
    this.paused.push(`${id} ${reason}`)
  }
}

describe('the pressure watch', () => {
  it('leaves capsules alone above the reserve', async () => {
    const host = new FakeHost().add('a', 500)
    const watch = host.watch()
    await watch.check()
    expect(host.paused).toEqual([])
    expect(watch.status()).toMatchObject({ memory: { short: false }, pool: { short: false }, problem: undefined })
  })

  it('pauses one after the other until there is clearly enough memory again', async () => {
    const host = new FakeHost().add('a', 200, { idleMs: 3 }).add('b', 200, { idleMs: 2 }).add('c', 200, { idleMs: 1 })
    host.availableBytes = 900 * MIB
    const watch = host.watch()
    await watch.check()
    expect(host.paused).toEqual(['a memory_pressure', 'b memory_pressure'])
    expect(watch.status()).toMatchObject({ memory: { short: false }, paused: { memory_pressure: 2, pool_low: 0 } })
  })

  it('goes on to the next when one cannot be paused, and tries that one later', async () => {
    const host = new FakeHost().add('stuck', 300, { idleMs: 9 }).add('b', 100)
    host.stubborn.add('stuck')
    host.availableBytes = 900 * MIB
    const watch = host.watch()
    await watch.check()
    expect(host.paused).toEqual(['b memory_pressure'])
    expect(watch.status()).toMatchObject({ failedPauses: 1, problem: expect.stringContaining('short of memory') })
    host.stubborn.clear()
    await watch.check()
    expect(host.paused).toHaveLength(1)
    host.now += 30_000
    await watch.check()
    expect(host.paused).toEqual(['b memory_pressure', 'stuck memory_pressure'])
    expect(watch.status().problem).toBeUndefined()
  })

  it('pauses one capsule when the host only stalls, and waits for what that changed', async () => {
    const host = new FakeHost().add('a', 100, { idleMs: 2 }).add('b', 100, { idleMs: 1 })
    host.psi = 60
    const watch = host.watch()
    await watch.check()
    await watch.check()
    expect(host.paused).toEqual(['a memory_pressure'])
    host.now += 10_000
    await watch.check()
    expect(host.paused).toEqual(['a memory_pressure', 'b memory_pressure'])
  })

  it('pauses what fills the pool before it is full, and says when nothing can be won', async () => {
    const host = new FakeHost()
      .add('idle', 100)
      .add('writer', 100, { reasons: ['process'], grownBytesPerSec: 50 * MIB })
    host.poolFreeBytes = 900 * MIB
    const watch = host.watch()
    await watch.check()
    expect(host.paused).toEqual(['writer pool_low'])
    expect(watch.status().problem).toContain('delete checkpoints')
    host.poolFreeBytes = 1300 * MIB
    await watch.check()
    expect(watch.status().problem).toBeUndefined()
  })

  it('asks for the capsules once per round, so that their growth is that of an interval', async () => {
    const host = new FakeHost().add('a', 100).add('b', 100)
    let asked = 0
    const capsules = (): readonly PressureCapsule[] => {
      asked += 1
      return host.running
    }
    const watch = host.watch({ capsules })
    await watch.check()
    host.availableBytes = 100 * MIB
    await watch.check()
    expect({ asked, paused: host.paused.length }).toEqual({ asked: 2, paused: 2 })
  })

  it('survives a reading that fails and says so', async () => {
    const watch = new FakeHost().watch({ readMemory: () => Promise.reject(new Error('EMFILE')) })
    await watch.check()
    expect(watch.status().problem).toContain('EMFILE')
  })

  it('joins a round under way instead of starting a second, and ends with it', async () => {
    const host = new FakeHost().add('a', 400)
    host.availableBytes = 900 * MIB
    const watch = host.watch()
    await Promise.all([watch.check(), watch.check()])
    expect(host.paused).toEqual(['a memory_pressure'])
    await watch[Symbol.asyncDispose]()
  })
})
