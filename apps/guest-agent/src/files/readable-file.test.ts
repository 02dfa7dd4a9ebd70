import { describe, expect, it } from 'vitest'
import { type FileVersion, validatorsOf } from './readable-file.js'

const NOW_MS = 1_800_000_000_000

/** A file that changed so many microseconds after `NOW_MS`. */
function changedAt(afterUs: number): FileVersion {
  const ns = BigInt(NOW_MS) * 1_000_000n + BigInt(afterUs) * 1_000n
  return { ino: 7n, size: 3n, mtimeNs: ns, ctimeNs: ns }
}

describe('the tag of a file', () => {
  it.each([0, -1, -400, -49_000, 400, 999, 1_000, 20_000])(
    'is not told when it changed %i µs ago or ahead',
    (afterUs) => {
      expect(validatorsOf(changedAt(afterUs), NOW_MS).isFresh).toBe(true)
    },
  )

  it.each([-51_000, -3_600_000_000, 51_000, 3_600_000_000])('is told when it changed %i µs ago or ahead', (afterUs) => {
    expect(validatorsOf(changedAt(afterUs), NOW_MS).isFresh).toBeUndefined()
  })

  it('stays the same while the clock comes to its time and goes on, and is another after a change', () => {
    const file = changedAt(60_000)
    const tags = [0, 30, 60, 90, 200].map((laterMs) => validatorsOf(file, NOW_MS + laterMs).etag)
    expect(new Set(tags).size).toBe(1)
    expect(validatorsOf(changedAt(60_001), NOW_MS).etag).not.toBe(tags[0])
  })
})
