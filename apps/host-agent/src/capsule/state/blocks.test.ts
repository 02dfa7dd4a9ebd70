import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Blocks } from './blocks.js'

type Piece = readonly [start: number, end: number]

function blocks(pieces: readonly Piece[], unplacedBytes = 0): Blocks {
  const starts = Float64Array.from(pieces.map(([start]) => start))
  return Blocks.of({ starts, ends: Float64Array.from(pieces.map(([, end]) => end)), unplacedBytes })
}

/** The same, byte by byte. */
function bytesOf(pieces: readonly Piece[]): Set<number> {
  return new Set(pieces.flatMap(([start, end]) => Array.from({ length: end - start }, (_, at) => start + at)))
}

const pieces = fc.array(
  fc.tuple(fc.nat(60), fc.integer({ min: 1, max: 12 })).map(([start, length]): Piece => [start, start + length]),
  { maxLength: 8 },
)

describe('blocks of a device', () => {
  it('count once what several sets hold, and tell what each alone holds', async () => {
    const capsule = blocks([
      [0, 10],
      [20, 30],
    ])
    const checkpoint = blocks(
      [
        [5, 10],
        [30, 34],
      ],
      2,
    )
    expect(await Blocks.together([capsule, checkpoint])).toEqual({ bytes: 26, own: [15, 6] })
    expect(await Blocks.together([])).toEqual({ bytes: 0, own: [] })
    expect(await Blocks.together([Blocks.none(), checkpoint])).toEqual({ bytes: 11, own: [0, 11] })
  })

  it('are the same counted byte by byte', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(pieces, { maxLength: 6 }), pieces, async (all, removed) => {
        const base = bytesOf(removed)
        const expected = all.map((each) => new Set([...bytesOf(each)].filter((byte) => !base.has(byte))))
        const sets = all.map((each) => blocks(each).minus(blocks(removed)))
        const union = new Set(expected.flatMap((set) => [...set]))
        const { bytes, own } = await Blocks.together(sets)
        expect(bytes).toBe(union.size)
        expect(sets.map((set) => set.bytes)).toEqual(expected.map((set) => set.size))
        expect(own).toEqual(
          expected.map(
            (set, at) => [...set].filter((byte) => expected.every((other, to) => to === at || !other.has(byte))).length,
          ),
        )
      }),
    )
  })
})
