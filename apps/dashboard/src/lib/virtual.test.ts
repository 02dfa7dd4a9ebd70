import { describe, expect, it } from 'vitest'
import { sliceOf } from './virtual.js'

describe('sliceOf', () => {
  it('has all of a short list', () => {
    expect(sliceOf(200, 48, 5_000, 600)).toEqual({ start: 0, end: 200 })
  })

  it('has what is seen of a long one, wherever it is scrolled to', () => {
    for (const offset of [-500, 0, 48_000, 479_000, 10_000_000]) {
      const { start, end } = sliceOf(10_000, 48, offset, 800)
      expect([start >= 0, start <= end, end <= 10_000, end - start < 40]).toEqual([true, true, true, true])
    }
    const { start, end } = sliceOf(10_000, 48, 48_000, 800)
    expect(start).toBeLessThanOrEqual(1_000)
    expect(end).toBeGreaterThanOrEqual(1_017)
    expect(sliceOf(10_000, 48, 479_200, 800).end).toBe(10_000)
    expect(sliceOf(10_000, 48, 48_000, 800, 1)).toEqual({ start: 999, end: 1_018 })
  })
})
