import type { MetricsPoint } from '@wrenn/sdk'
import { describe, expect, it } from 'vitest'
import { percent, rangeOf, seriesOf, summaryOf } from './series.js'

const point = (sec: number, more: Partial<MetricsPoint> = {}): MetricsPoint => ({
  ...{ timestamp: new Date(sec * 1000), cpuPct: 1, cpuMaxPct: 2, memoryBytes: 3, diskBytes: 4 },
  ...more,
})

describe('series', () => {
  it('have what was measured, and traffic by the second', () => {
    const points = [point(100, { netRxBytes: 300, netTxBytes: 30 }), point(130)]
    expect(seriesOf({ stepMs: 30_000, points })).toEqual({
      ...{ times: [100, 130], cpu: [1, 1], cpuMax: [2, 2], memory: [3, 3], disk: [4, 4] },
      ...{ received: [10, null], sent: [1, null] },
    })
  })

  it('break where the capsule slept', () => {
    const { times, cpu } = seriesOf({ stepMs: 5_000, points: [point(100), point(105), point(300), point(305)] })
    expect(times).toEqual([100, 105, 110, 300, 305])
    expect(cpu).toEqual([1, 1, null, 1, 1])
  })

  it('are empty without points', () => {
    expect(seriesOf({ stepMs: 5_000, points: [] }).times).toEqual([])
  })
})

describe('a summary', () => {
  it('tells the latest, the average and the peak of what was measured', () => {
    expect(summaryOf([1, null, 9, 2, null])).toEqual({ latest: 2, average: 4, peak: 9 })
    expect(summaryOf([null])).toBeUndefined()
  })
})

describe('ranges', () => {
  it('are those of the address, or an hour', () => {
    expect([rangeOf('24h').seconds, rangeOf('7m').range, rangeOf(null).range]).toEqual([86_400, '1h', '1h'])
    expect([rangeOf('5m').label, rangeOf('10m').label, rangeOf('12h').label]).toEqual(['5 min', '10 min', '12 h'])
  })
})

describe('percent', () => {
  it('has a digit more where it is small', () => {
    expect([0, 0.44, 9.96, 37.2, 100].map(percent)).toEqual(['0.0 %', '0.4 %', '10.0 %', '37 %', '100 %'])
  })
})
