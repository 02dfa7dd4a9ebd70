import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type TextPiece, TextPieces } from './text-pieces.js'

/** What comes out of `bytes` cut at `cuts`. */
function pieces(bytes: Uint8Array, cuts: readonly number[]): TextPiece[] {
  const stream = new TextPieces()
  const edges = [0, ...cuts.filter((cut) => cut < bytes.length).sort((a, b) => a - b), bytes.length]
  const told = edges.slice(1).map((to, index) => {
    const from = edges[index] ?? 0
    return stream.next(bytes.subarray(from, to), from)
  })
  return [...told, stream.end()].filter((piece) => piece !== undefined)
}
const textOf = (bytes: Uint8Array, cuts: readonly number[]) =>
  pieces(bytes, cuts)
    .map(({ text }) => text)
    .join('')

describe('output as text', () => {
  it('keeps a byte order mark, at its beginning, later and cut in three', () => {
    const bytes = Buffer.from('\uFEFFa\uFEFF\uFEFF')
    for (const cuts of [[], [1, 2], [3], [5], [1, 4, 6, 8]]) expect(textOf(bytes, cuts)).toBe('\uFEFFa\uFEFF\uFEFF')
  })

  it('is the same however it is cut, with the offset of the bytes that each piece stands for', () => {
    const cuts = fc.array(fc.nat(60), { maxLength: 12 })
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 20 }), cuts, (text, at) => {
        const bytes = Buffer.from(text)
        let offset = 0
        for (const piece of pieces(bytes, at)) {
          expect(piece.offset).toBe(offset)
          offset += Buffer.byteLength(piece.text)
        }
        expect(textOf(bytes, at)).toBe(bytes.toString())
      }),
    )
  })

  it('has U+FFFD for what is no text, as many as a decoder of the whole has', () => {
    const bytes = fc.uint8Array({ maxLength: 40 })
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
    fc.assert(
      fc.property(bytes, fc.array(fc.nat(40), { maxLength: 8 }), (some, at) => {
        expect(textOf(some, at)).toBe(decoder.decode(some))
      }),
      { numRuns: 2_000 },
    )
    // ED A0 and F0 80 begin no character, though their first bytes could.
    expect(textOf(Buffer.from([0xed, 0xa0, 0x41, 0xf0, 0x80]), [1, 2, 4])).toBe('\uFFFD\uFFFDA\uFFFD\uFFFD')
  })
})
