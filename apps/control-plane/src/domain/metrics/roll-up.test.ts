import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type MetricPoint, packPoints, unpackPoints } from '../../store/metric-points.js'
import { rollUp } from './roll-up.js'
import { beginOf, tierAt } from './tiers.js'

const BEGIN = 1_700_001_000 - (1_700_001_000 % 3_600)
const HUNDREDTHS = 100
/** What tells a sum that nobody counted from one that is 0. */
const optionalBytes = fc.option(fc.integer({ min: 0, max: 2 ** 40 }), { nil: undefined })

/** Looks of up to two hours, some of them missing. */
const looks = fc.array(
  fc
    .record({
      slot: fc.nat(2 * 720 - 1),
      cpu: fc.nat(100 * HUNDREDTHS),
      memBytes: fc.nat(2 ** 40),
      diskBytes: fc.nat(2 ** 45),
      netRxBytes: optionalBytes,
      netTxBytes: optionalBytes,
    })
    .map(({ slot, cpu, ...rest }): MetricPoint => {
      const cpuPct = cpu / HUNDREDTHS
      return { ...rest, atSec: BEGIN + slot * 5, samples: 1, cpuPct, cpuMaxPct: cpuPct }
    }),
  { minLength: 1, maxLength: 300 },
)
/** One at a time, as the host has them. */
const distinct = looks.map((points) => [...new Map(points.map((point) => [point.atSec, point])).values()])

/** As the rows of a tier keep them. */
function kept(points: readonly MetricPoint[], tier: number): MetricPoint[] {
  const { stepSec, spanSec } = tierAt(tier)
  const begins = [...new Set(points.map(({ atSec }) => beginOf(atSec, spanSec)))]
  return begins.flatMap((atSec) => {
    const some = points.filter((point) => beginOf(point.atSec, spanSec) === atSec)
    return unpackPoints({ atSec, stepSec }, packPoints({ atSec, stepSec }, some))
  })
}

const total = (points: readonly MetricPoint[], of: (point: MetricPoint) => number | undefined): number | undefined => {
  const counts = points.map(of).filter((count) => count !== undefined)
  return counts.length === 0 ? undefined : counts.reduce((sum, count) => sum + count, 0)
}

describe('points', () => {
  it('come back from a row as they were', () => {
    fc.assert(
      fc.property(distinct, (points) => {
        const byTime = (a: MetricPoint, b: MetricPoint) => a.atSec - b.atSec
        expect(kept(points, 0).sort(byTime)).toEqual([...points].sort(byTime))
      }),
    )
  })
})

describe('rolling up', () => {
  it('says for each step the sums, the peak and the average of its looks, in the order of time, and nothing of others', () => {
    fc.assert(
      fc.property(distinct, fc.constantFrom(30, 300), (points, stepSec) => {
        const rolled = rollUp(points, stepSec)
        const begins = [...new Set(points.map(({ atSec }) => beginOf(atSec, stepSec)))].sort((a, b) => a - b)
        expect(rolled.map(({ atSec }) => atSec)).toEqual(begins)
        for (const step of rolled) {
          const mine = points.filter(({ atSec }) => beginOf(atSec, stepSec) === step.atSec)
          const average = (of: (point: MetricPoint) => number) => (total(mine, of) ?? 0) / mine.length
          expect(step).toMatchObject({
            samples: mine.length,
            cpuMaxPct: Math.max(...mine.map(({ cpuPct }) => cpuPct)),
            netRxBytes: total(mine, ({ netRxBytes }) => netRxBytes),
            netTxBytes: total(mine, ({ netTxBytes }) => netTxBytes),
          })
          expect(step.cpuPct).toBeCloseTo(
            average(({ cpuPct }) => cpuPct),
            6,
          )
          expect(Math.abs(step.memBytes - average(({ memBytes }) => memBytes))).toBeLessThanOrEqual(1)
        }
      }),
    )
  })

  it('comes to the same by way of the tier between, but for what rounding takes', () => {
    fc.assert(
      fc.property(distinct, (points) => {
        const direct = rollUp(points, tierAt(2).stepSec)
        const between = kept(rollUp(kept(points, 0), tierAt(1).stepSec), 1)
        const rolled = kept(rollUp(between, tierAt(2).stepSec), 2).sort((a, b) => a.atSec - b.atSec)
        const exact = ({ atSec, samples, cpuMaxPct, netRxBytes, netTxBytes }: MetricPoint) => [
          ...[atSec, samples, cpuMaxPct, netRxBytes, netTxBytes],
        ]
        expect(rolled.map(exact)).toEqual(direct.map(exact))
        for (const [index, { cpuPct, memBytes, diskBytes }] of rolled.entries()) {
          // Half a hundredth for each of two roundings.
          expect(Math.abs(cpuPct - (direct[index]?.cpuPct ?? Number.NaN))).toBeLessThanOrEqual(0.010_001)
          expect(Math.abs(memBytes - (direct[index]?.memBytes ?? Number.NaN))).toBeLessThanOrEqual(2)
          expect(Math.abs(diskBytes - (direct[index]?.diskBytes ?? Number.NaN))).toBeLessThanOrEqual(2)
        }
      }),
    )
  })
})
