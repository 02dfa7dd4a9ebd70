import { AppError } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { LineLost, type Patience, Pulse, patienceOf } from './pulse.js'

const patience: Patience = patienceOf()
let probes: ((answered: boolean) => void)[]
let pulse: Pulse

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
  probes = []
  pulse = new Pulse(patience, () => new Promise((resolve) => probes.push(resolve)))
})
afterEach(() => {
  vi.useRealTimers()
})

/** Lets the probes of some time pass, each answered at once by a guest that answers. */
async function pass(ms: number, answers: boolean): Promise<void> {
  for (let passed = 0; passed < ms; passed += 250) {
    await vi.advanceTimersByTimeAsync(250)
    if (answers) for (const answer of probes.splice(0)) answer(true)
    await vi.advanceTimersByTimeAsync(0)
  }
}
const codeOf = (failure: unknown): string => (AppError.is(failure) ? failure.code : String(failure))

describe('a call to a guest', () => {
  it('is given up after a silence in which no probe was answered', async () => {
    using watch = pulse.watch()
    watch.waits()
    await pass(patience.silenceMs - 250, false)
    expect(watch.failure).toBeUndefined()
    expect(probes.length).toBeGreaterThan(5)
    await pass(500, false)
    expect(codeOf(watch.failure)).toBe('guest_unreachable')
  })

  it('has all its probes wait on one end, which Node does not take for a leak', async () => {
    const warnings: Error[] = []
    const note = (warning: Error) => warnings.push(warning)
    process.on('warning', note)
    const silent = new Pulse(patience, (signal) => new Promise((_, reject) => signal.addEventListener('abort', reject)))
    using watch = silent.watch()
    watch.waits()
    await pass(patience.silenceMs, false)
    await new Promise((resolve) => setImmediate(resolve))
    process.off('warning', note)
    expect(warnings).toEqual([])
  })

  it('goes on for hours while the guest answers probes', async () => {
    using watch = pulse.watch()
    watch.waits()
    await pass(2 * 3_600_000, true)
    expect(watch.failure).toBeUndefined()
  })

  it('goes on while a slow guest answers each probe after twenty seconds', async () => {
    using watch = pulse.watch()
    watch.waits()
    for (let round = 0; round < 10; round++) {
      await pass(20_000, false)
      for (const answer of probes.splice(0, 1)) answer(true)
    }
    expect(watch.failure).toBeUndefined()
  })

  it('costs a guest that is heard no probe', async () => {
    using watch = pulse.watch({ lineMs: patience.stuckMs })
    for (let round = 0; round < 100; round++) {
      watch.waits()
      await pass(patience.keepaliveMs, false)
      watch.got(false)
    }
    expect(probes).toEqual([])
    expect(watch.failure).toBeUndefined()
  })

  it('is given up soon after its own timeout, and not before', async () => {
    using watch = pulse.watch({ dueAtMs: performance.now() + 10_000 })
    watch.waits()
    await pass(10_000 + patience.overdueMs - 250, false)
    expect(watch.failure).toBeUndefined()
    await pass(500, false)
    expect(watch.failure).toMatchObject({ code: 'guest_unreachable', message: expect.stringContaining('timeout_sec') })
  })

  it('may end late when its guest is only slow', async () => {
    using watch = pulse.watch({ dueAtMs: performance.now() + 1_000 })
    watch.waits()
    await pass(patience.stuckMs, true)
    expect(watch.failure).toBeUndefined()
  })

  it('ends with `timeout` when the guest answers and never ends the command', async () => {
    using watch = pulse.watch({ dueAtMs: performance.now() + 1_000, lineMs: patience.stuckMs })
    for (let round = 0; round < 8; round++) {
      watch.waits()
      await pass(patience.keepaliveMs, true)
      watch.got(false)
    }
    watch.waits()
    await pass(500, true)
    expect(codeOf(watch.failure)).toBe('timeout')
  })

  it('is not cut while its output flows after its timeout, however slowly it is read', async () => {
    using watch = pulse.watch({ dueAtMs: performance.now() + 1_000, lineMs: patience.stuckMs })
    for (let round = 0; round < 5; round++) {
      watch.waits()
      watch.got()
      await pass(2 * patience.stuckMs, true) // its reader is busy
    }
    watch.waits()
    await pass(1_000, true)
    expect(watch.failure).toBeUndefined()
  })

  it('does not count the time in which we stopped the guest, or stood still ourselves', async () => {
    using watch = pulse.watch({ dueAtMs: performance.now() + 1_000 })
    watch.waits()
    {
      using _ = pulse.hold()
      await pass(60_000, false)
    }
    expect(watch.failure).toBeUndefined()
    await pass(patience.overdueMs + 500, false)
    expect(codeOf(watch.failure)).toBe('guest_unreachable')
  })

  it('has nothing to wait for while its reader is busy', async () => {
    using watch = pulse.watch({ dueAtMs: performance.now() + 1_000 })
    watch.waits()
    watch.got()
    await pass(10 * patience.silenceMs, false)
    expect(watch.failure).toBeUndefined()
    expect(probes).toEqual([])
  })
})

describe('a stream whose guest answers otherwise', () => {
  it('has lost its line after two keepalives that did not come', async () => {
    using watch = pulse.watch({ lineMs: patience.stuckMs })
    watch.waits()
    watch.got()
    watch.waits()
    await pass(patience.lineMs - 250, true)
    expect(watch.failure).toBeUndefined()
    await pass(500, true)
    expect(watch.failure).toBeInstanceOf(LineLost)
  })

  it('has lost its line at once when the guest is back after a longer silence', async () => {
    using watch = pulse.watch({ lineMs: patience.stuckMs })
    watch.waits()
    watch.got()
    watch.waits()
    await pass(patience.lineMs + 5_000, false)
    expect(watch.failure).toBeUndefined()
    for (const answer of probes.splice(0)) answer(true)
    await pass(250, true)
    expect(watch.failure).toBeInstanceOf(LineLost)
  })
})

describe('a pulse', () => {
  it('has no timer and no probe left when nobody waits', async () => {
    const seen: AbortSignal[] = []
    const lonely = new Pulse(patience, (signal) => {
      seen.push(signal)
      return new Promise(() => {})
    })
    {
      using watch = lonely.watch()
      watch.waits()
      await pass(20_000, false)
    }
    expect(vi.getTimerCount()).toBe(0)
    expect(seen.length).toBeGreaterThan(0)
    expect(seen.every(({ aborted }) => aborted)).toBe(true)
  })
})
