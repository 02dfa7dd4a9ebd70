import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { withinAwakeTime } from './awake-time.js'
import { TimeoutError } from './errors.js'
import type { CapsuleState } from './types.js'

let state: CapsuleState

beforeEach(() => {
  vi.useFakeTimers()
  state = 'running'
})
afterEach(() => {
  vi.useRealTimers()
})

const time = () => ({ limitMs: 10_000, askState: async () => state, signal: undefined })
const never = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))

describe('a deadline in awake time', () => {
  it('passes when the capsule runs', async () => {
    const late = expect(withinAwakeTime(time(), never)).rejects.toBeInstanceOf(TimeoutError)
    await vi.advanceTimersByTimeAsync(10_000)
    await late
  })

  it('does not pass while the capsule sleeps, and starts anew after that', async () => {
    state = 'paused'
    let isOver = false
    const late = withinAwakeTime(time(), never).catch(() => {
      isOver = true
    })
    await vi.advanceTimersByTimeAsync(3_600_000)
    expect(isOver).toBe(false)
    state = 'running'
    await vi.advanceTimersByTimeAsync(10_000)
    expect(isOver).toBe(false)
    await vi.advanceTimersByTimeAsync(1_000)
    await late
    expect(isOver).toBe(true)
  })

  it('leaves nothing behind when the work is done in time', async () => {
    expect(await withinAwakeTime(time(), async () => 7)).toBe(7)
    expect(vi.getTimerCount()).toBe(0)
  })
})
