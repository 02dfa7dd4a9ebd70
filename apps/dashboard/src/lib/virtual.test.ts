import { describe, expect, it } from 'vitest'
import { PIECE_ROWS, piecesOf, sliceOf } from './virtual.js'

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

describe('piecesOf', () => {
  const list = (length: number): number[] => Array.from({ length }, (_, at) => at)

  it('has all of a short list in one, also where it is empty', () => {
    for (const length of [0, 1, 200]) expect(piecesOf(list(length))).toEqual([list(length)])
  })

  it('has each item of a long one once, in its order', () => {
    for (const length of [201, 400, 10_001]) {
      const pieces = piecesOf(list(length))
      expect(pieces.flat()).toEqual(list(length))
      expect(Math.max(...pieces.map((piece) => piece.length))).toBe(PIECE_ROWS)
    }
  })
})
