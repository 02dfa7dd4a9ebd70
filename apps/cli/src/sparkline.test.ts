import { describe, expect, it } from 'vitest'
import { sparkline } from './sparkline.js'

const span = { fromMs: 0, toMs: 80, width: 8 }
const at = (atMs: number, value: number | undefined) => ({ atMs, value })

describe('a sparkline', () => {
  it('goes from nothing to the highest, with a space where there is nothing', () => {
    expect(sparkline([at(0, 0), at(10, 50), at(20, 100), at(70, 25)], span)).toBe('▁▅█    ▃')
  })

  it('shows the highest of each part, and nothing from outside', () => {
    expect(sparkline([at(-1, 900), at(0, 1), at(9, 8), at(10, 8), at(80, 900)], span)).toBe('██      ')
  })

  it('is flat where nothing is used, and empty where nothing was measured', () => {
    expect(sparkline([at(0, 0), at(10, 0), at(20, undefined)], span)).toBe('▁▁      ')
    expect(sparkline([], span)).toBe('        ')
  })
})
