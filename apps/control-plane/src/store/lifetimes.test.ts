import { capsuleStates } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { renewedLife } from './lifetimes.js'

const NOW = Date.parse('2026-01-01T00:00:00Z')

function secondsLeft(...[row, state]: Parameters<typeof renewedLife>): number | undefined {
  const { ends_at: endsAt } = renewedLife(row, state, NOW)
  return endsAt === undefined ? undefined : (endsAt.getTime() - NOW) / 1000
}

describe('the life of a capsule', () => {
  it('begins when the capsule first runs', () => {
    expect(secondsLeft({ state: 'starting', lifetime_sec: 15 }, 'running')).toBe(15)
  })

  it('begins anew after a sleep, and is then no shorter than five minutes', () => {
    for (const state of ['paused', 'resuming'] as const) {
      expect(secondsLeft({ state, lifetime_sec: 15 }, 'running')).toBe(300)
      expect(secondsLeft({ state, lifetime_sec: 900 }, 'running')).toBe(900)
    }
  })

  it('goes on when a pause fails, a host is heard again, or a running capsule is copied', () => {
    for (const state of ['pausing', 'missing', 'running'] as const) {
      expect(secondsLeft({ state, lifetime_sec: 15 }, 'running')).toBeUndefined()
    }
  })

  it('has no end without a length', () => {
    for (const state of capsuleStates) expect(secondsLeft({ state, lifetime_sec: null }, 'running')).toBeUndefined()
  })

  it('stands still while the capsule does not come to run', () => {
    for (const state of capsuleStates) {
      if (state !== 'running') expect(secondsLeft({ state: 'paused', lifetime_sec: 15 }, state)).toBeUndefined()
    }
  })
})
