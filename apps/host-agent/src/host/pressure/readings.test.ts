import { describe, expect, it } from 'vitest'
import { parseMeminfo, parsePressure, readMemory } from './readings.js'

describe('memory readings', () => {
  it('reads the total and what is available', () => {
    const text = 'MemTotal:       24595424 kB\nMemFree:        1234 kB\nMemAvailable:   20000000 kB\n'
    expect(parseMeminfo(text)).toEqual({ totalBytes: 24_595_424 * 1024, availableBytes: 20_000_000 * 1024 })
  })

  it('reads pressure where the kernel has it', () => {
    const text = 'some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=2\n'
    expect(parsePressure(text)).toEqual({ psiSomeAvg10: 1.5, psiFullAvg10: 0.25 })
    expect(parsePressure('')).toEqual({})
  })

  it('reads this machine', async () => {
    const { totalBytes, availableBytes } = await readMemory()
    expect(totalBytes).toBeGreaterThan(2 ** 28)
    expect(availableBytes).toBeLessThanOrEqual(totalBytes)
  })
})
