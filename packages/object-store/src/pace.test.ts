import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Pace } from './pace.js'

const { signal } = new AbortController()
const wait = vi.hoisted(() => vi.fn<(ms: number) => Promise<void>>())
vi.mock('node:timers/promises', () => ({ setTimeout: wait }))

/** Time passes by waiting alone. */
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date', 'performance'], now: 0 })
  wait.mockImplementation(async (ms) => {
    vi.advanceTimersByTime(ms)
  })
})
afterEach(() => {
  vi.useRealTimers()
  wait.mockReset()
})

describe('a pace', () => {
  it('lets each wait for what was taken before, whatever the pieces', async () => {
    const pace = new Pace(1_000)
    for (const bytes of [500, 1_500, 10, 2_000]) await pace.take(bytes, signal)
    expect(wait.mock.calls.map(([ms]) => ms)).toEqual([500, 1_500, 10])
    await pace.take(1, signal)
    expect(performance.now()).toBe(4_010)
  })

  it('saves up nothing while nobody takes', async () => {
    const pace = new Pace(1_000)
    await pace.take(1_000, signal)
    vi.advanceTimersByTime(59_000)
    await pace.take(1_000, signal)
    await pace.take(1_000, signal)
    expect(wait.mock.calls.map(([ms]) => ms)).toEqual([1_000])
  })

  it('waits no longer when the clock is set back', async () => {
    const pace = new Pace(1_000)
    await pace.take(1_000, signal)
    vi.setSystemTime(-3_600_000)
    await pace.take(1, signal)
    expect(wait.mock.calls.map(([ms]) => ms)).toEqual([1_000])
  })

  it('lets nobody wait where there is no limit', async () => {
    const pace = new Pace(undefined)
    for (let times = 0; times < 3; times++) await pace.take(2 ** 40, signal)
    expect(wait).not.toHaveBeenCalled()
  })
})
