import { describe, expect, it } from 'vitest'
import { daysOf, monthOf } from './month.js'

const NOW = new Date('2026-03-05T23:30:00Z')
const point = (date: string) => ({
  ...{ date, vcpuSeconds: 1, memoryGibSeconds: 2, diskGibSeconds: 3 },
  ...{ cpuMinutes: 0, ramMibMinutes: 0, netRxBytes: 0, netTxBytes: 0 },
})

describe('a month', () => {
  it('is this one up to today, unless an address names another that has begun', () => {
    const now = {
      key: '2026-03',
      from: '2026-03-01',
      to: '2026-03-05',
      isNow: true,
      before: '2026-02',
      after: undefined,
    }
    for (const text of [null, '2026-03', '2026-04', '2026-13', 'x', '0001-01']) {
      expect(monthOf(text, NOW)).toMatchObject({ ...now, label: 'March 2026' })
    }
  })

  it('is a whole one when it has passed, also over the turn of a year', () => {
    expect(monthOf('2024-02', NOW)).toMatchObject({ from: '2024-02-01', to: '2024-02-29', after: '2024-03' })
    expect(monthOf('2025-12', NOW)).toMatchObject({
      to: '2025-12-31',
      before: '2025-11',
      after: '2026-01',
      isNow: false,
    })
  })

  it('has all of its days', () => {
    const days = daysOf(monthOf('2026-02', NOW), [point('2026-02-03')])
    expect(days).toHaveLength(28)
    expect(days[2]).toEqual({ date: '2026-02-03', point: point('2026-02-03') })
    expect(days.filter(({ point: each }) => each !== undefined)).toHaveLength(1)
  })
})
