import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { SleepWatch } from './sleep-watch.js'
import type { CapsuleState } from './types.js'

let state: CapsuleState | 'unreachable'
let asked: number
let told: string[]
let watch: SleepWatch

beforeEach(() => {
  vi.useFakeTimers()
  state = 'running'
  asked = 0
  told = []
  const ask = async (): Promise<CapsuleState> => {
    asked += 1
    if (state === 'unreachable') throw new Error('no answer')
    return state
  }
  watch = new SleepWatch(ask, (what) => told.push(what))
})
afterEach(() => {
  vi.useRealTimers()
})

describe('the sleep watch', () => {
  it('tells of a pause and of its end, once each, while nothing is said', async () => {
    const end = new AbortController()
    const run = watch.run(end.signal)
    state = 'paused'
    await vi.advanceTimersByTimeAsync(20_000)
    state = 'running'
    await vi.advanceTimersByTimeAsync(20_000)
    expect(told).toEqual(['paused', 'resumed'])
    end.abort()
    await run
  })

  it('asks nothing while output comes', async () => {
    const end = new AbortController()
    const run = watch.run(end.signal)
    for (let second = 0; second < 30; second += 1) {
      watch.heard()
      await vi.advanceTimersByTimeAsync(1000)
    }
    expect(asked).toBe(0)
    end.abort()
    await run
  })

  it('takes output for the end of a pause', async () => {
    state = 'pausing'
    expect(await watch.check()).toBe(true)
    watch.heard()
    expect(told).toEqual(['paused', 'resumed'])
  })

  it('asks nothing while the server tells by itself, and takes the last words before a pause for no end of it', async () => {
    const end = new AbortController()
    const run = watch.run(end.signal)
    watch.told('running')
    watch.told('pausing')
    watch.heard()
    watch.told('paused')
    await vi.advanceTimersByTimeAsync(60_000)
    expect(told).toEqual(['paused'])
    watch.told('running')
    expect(told).toEqual(['paused', 'resumed'])
    expect(asked).toBe(0)
    end.abort()
    await run
  })

  it('looks again when the connection on which it was told is gone', async () => {
    const end = new AbortController()
    const run = watch.run(end.signal)
    watch.told('running')
    watch.untold()
    state = 'paused'
    await vi.advanceTimersByTimeAsync(20_000)
    expect(told).toEqual(['paused'])
    end.abort()
    await run
  })

  it('goes on looking when nobody answers', async () => {
    const end = new AbortController()
    const run = watch.run(end.signal)
    state = 'unreachable'
    await vi.advanceTimersByTimeAsync(20_000)
    state = 'resuming'
    await vi.advanceTimersByTimeAsync(10_000)
    expect(told).toEqual(['paused'])
    end.abort()
    await run
  })

  it('waits until the capsule is awake, and says whether it was not', async () => {
    const { signal } = new AbortController()
    expect(await watch.untilAwake(signal)).toBe(false)
    state = 'paused'
    const awake = watch.untilAwake(signal)
    await vi.advanceTimersByTimeAsync(600_000)
    state = 'running'
    await vi.advanceTimersByTimeAsync(1000)
    expect(await awake).toBe(true)
  })
})
