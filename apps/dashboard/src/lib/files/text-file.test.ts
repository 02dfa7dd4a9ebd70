import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeText, encodeText } from './text-file.js'

const bytesOf = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text)

describe('text of a file', () => {
  it('has its byte order mark and line ends apart, and gets them back', () => {
    const windows = bytesOf('\ufeffone\r\ntwo\r\n')
    const file = decodeText(windows, false)
    expect(file).toEqual({ text: 'one\ntwo\n', hasMark: true, lineEnd: '\r\n' })
    expect(file && encodeText('one\nthree\n', file)).toEqual(bytesOf('\ufeffone\r\nthree\r\n'))
    expect(decodeText(bytesOf(''), false)).toEqual({ text: '', hasMark: false, lineEnd: '\n' })
  })

  it('whose lines end in more ways than one is told apart', () => {
    for (const text of ['a\r\nb\n', 'a\rb', 'a\r\r\n', '\r']) {
      expect([text, decodeText(bytesOf(text), false)]).toEqual([text, { text, hasMark: false, lineEnd: 'mixed' }])
    }
  })

  it('is the same bytes again when nothing was edited', () => {
    const ends = fc.constantFrom('', '\n', '\r\n', '\r', '\ufeff', 'ü', '€', '\u2028')
    fc.assert(
      fc.property(fc.array(fc.oneof(ends, fc.string({ unit: 'grapheme' }))), (parts) => {
        const bytes = bytesOf(parts.join('').replaceAll('\0', ''))
        const file = decodeText(bytes, false)
        expect(file && encodeText(file.text, file)).toEqual(bytes)
      }),
    )
  })

  it('leaves out a last character of which there is only a part, where it was cut', () => {
    const part = bytesOf('größe €').slice(0, -1)
    expect(decodeText(part, true)?.text).toBe('größe ')
    expect(decodeText(part, false)).toBeUndefined()
  })

  it('is not there for other bytes', () => {
    expect([decodeText(Uint8Array.of(65, 0), true), decodeText(Uint8Array.of(0xff, 0xfe), true)]).toEqual([
      undefined,
      undefined,
    ])
  })
})
