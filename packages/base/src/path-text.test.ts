import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { hasEscapes, pathBytes, pathText } from './path-text.js'

const bytes = (...values: number[]): Buffer => Buffer.from(values)

describe('pathText and pathBytes', () => {
  it('leave UTF-8 as it is', () => {
    for (const name of ['plain', 'é', '日本語', '🦊', '\u0001\n', 'a\ufffdb', '\ufffd']) {
      expect(pathText(Buffer.from(name))).toBe(name)
      expect(pathBytes(name)).toEqual(Buffer.from(name))
      expect(hasEscapes(name)).toBe(false)
    }
  })

  it('tell names apart that are not UTF-8', () => {
    expect(pathText(bytes(0x61, 0xfe))).toBe('a\ufffdfe')
    expect(pathText(bytes(0x61, 0xff))).toBe('a\ufffdff')
    expect(pathText(Buffer.from('caf\xe9', 'latin1'))).toBe('caf\ufffde9')
    expect(hasEscapes('caf\ufffde9')).toBe(true)
  })

  it('escape cut, overlong and surrogate sequences byte by byte', () => {
    expect(pathText(bytes(0xe2, 0x82))).toBe('\ufffde2\ufffd82')
    expect(pathText(bytes(0xc0, 0xaf))).toBe('\ufffdc0\ufffdaf')
    expect(pathText(bytes(0xed, 0xa0, 0x80))).toBe('\ufffded\ufffda0\ufffd80')
    expect(pathText(bytes(0xf4, 0x90, 0x80, 0x80))).toBe('\ufffdf4\ufffd90\ufffd80\ufffd80')
  })

  it('escape a real U+FFFD only where it would be read as an escape', () => {
    const real = Buffer.from('x\ufffdfe')
    expect(pathText(real)).toBe('x\ufffdef\ufffdbf\ufffdbdfe')
    expect(pathBytes(pathText(real))).toEqual(real)
  })

  it('give any bytes back, and the same text only for the same bytes', () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 4 }).map((each) => Buffer.from(each)),
      fc.constantFrom('\ufffd', 'fe', '8', 'a0', 'é', '🦊').map((each) => Buffer.from(each)),
    )
    const name = fc.array(piece, { maxLength: 8 }).map((pieces) => Buffer.concat(pieces))
    fc.assert(
      fc.property(name, (raw) => {
        expect(pathBytes(pathText(raw))).toEqual(raw)
      }),
      { numRuns: 5_000 },
    )
  })

  it('read any text as bytes that come back as one text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const canonical = pathText(pathBytes(text))
        expect(pathText(pathBytes(canonical))).toBe(canonical)
      }),
    )
  })
})
