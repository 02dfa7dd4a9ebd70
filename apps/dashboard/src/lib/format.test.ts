import { describe, expect, it } from 'vitest'
import { bytes, counted, duration, hours, mib, relative } from './format.js'

describe('bytes', () => {
  it('shows three digits at most, in units of 1024', () => {
    const shown = [0, 999, 1000, 1024, 1536, 20_480, 1_048_576, 5 * 1024 ** 3, 2 ** 50].map(bytes)
    expect(shown).toEqual(['0 B', '999 B', '0.98 KiB', '1 KiB', '1.5 KiB', '20 KiB', '1 MiB', '5 GiB', '1024 TiB'])
  })

  it('shows sizes of memory as people say them', () => {
    expect([512, 1024, 2048].map(mib)).toEqual(['512 MiB', '1 GiB', '2 GiB'])
  })
})

describe('duration', () => {
  it('shows the two largest parts', () => {
    const shown = [3.21, 48, 1000, 61_000, 7_500_000, 90_000_000, 86_400_000].map(duration)
    expect(shown).toEqual(['3.2 ms', '48 ms', '1 s', '1 min 1 s', '2 h 5 min', '1 d 1 h', '1 d'])
  })
})

describe('hours', () => {
  it('have as many digits as are worth reading', () => {
    expect([0, 10, 144, 5_400, 45_000, 4_334_400].map(hours)).toEqual(['0', '< 0.01', '0.04', '1.5', '12.5', '1,204'])
  })
})

describe('relative', () => {
  const now = new Date('2026-01-01T12:00:00Z')
  const at = (ms: number) => relative(new Date(now.getTime() + ms), now)

  it('tells how long ago or until when', () => {
    expect([at(-90_000), at(7_200_000), at(-3 * 86_400_000), at(1_000)]).toEqual([
      '1 min ago',
      'in 2 h',
      '3 d ago',
      'just now',
    ])
  })
})

describe('counted', () => {
  it('takes one or several', () => {
    expect([
      counted(1, 'capsule'),
      counted(0, 'capsule'),
      counted(1200, 'capsule'),
      counted(2, 'copy', 'copies'),
    ]).toEqual(['1 capsule', '0 capsules', '1,200 capsules', '2 copies'])
  })
})
