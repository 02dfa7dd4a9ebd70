import { describe, expect, it, vi } from 'vitest'
import { Terminations } from './terminations.js'

const occupant = () => ({ breakOff: vi.fn<() => void>() })

describe('places of connections whose TLS ends in the filter', () => {
  it('are bounded for each source and for all, and who has most makes room', () => {
    const terminations = new Terminations({ all: 3, perSource: 2 })
    const first = occupant()
    expect(terminations.take('a', first)).toBe(0)
    expect(terminations.take('a', occupant())).toBe(0)
    expect(terminations.take('a', occupant())).toBeUndefined()
    expect(terminations.take('b', occupant())).toBe(0)
    expect(terminations.take('c', occupant())).toBe(0)
    expect(first.breakOff).toHaveBeenCalledOnce()
    terminations.leave('a', first)
    expect(terminations.take('a', occupant())).toBeUndefined() // all three are taken
  })

  it('are filled by a source only so fast', () => {
    const terminations = new Terminations({ all: 100, perSource: 100 })
    const take = (source: string, now: number) => terminations.take(source, occupant(), now)
    const now = 10_000
    expect(Array.from({ length: 32 }, () => take('a', now))).toEqual(Array.from({ length: 32 }, () => 0))
    expect([take('a', now), take('a', now)]).toEqual([62.5, 125])
    expect(take('b', now)).toBe(0)
    expect(take('a', now + 1000)).toBe(0)
    terminations.forget('a')
    expect(take('a', now)).toBe(0)
  })
})
