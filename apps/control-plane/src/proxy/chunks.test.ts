import { describe, expect, it } from 'vitest'
import { Chunks } from './chunks.js'

const BODY = '5;a="b"\r\nhello\r\n1\r\n \r\nA\r\n\r\nline feed\r\n0\r\nX-Sum: 16\r\nX-Empty:\r\n\r\n'.replace(
  'A\r\n',
  'b\r\n',
)

/** What is read of bytes that come in pieces. */
function read(pieces: readonly string[]): { data: string; end: number | undefined; rawTrailers: string[] } {
  const chunks = new Chunks()
  let [data, end]: [string, number | undefined] = ['', undefined]
  for (const piece of pieces) {
    end = chunks.read(Buffer.from(piece, 'latin1'), 0, (part) => {
      data += part.toString('latin1')
    })
  }
  return { data, end, rawTrailers: chunks.rawTrailers }
}

describe('a body in chunks', () => {
  it('is read the same however its bytes are cut, and ends where it ends', () => {
    const whole = { data: 'hello \r\nline feed', rawTrailers: ['X-Sum', '16', 'X-Empty', ''] }
    expect(read([`${BODY}HTTP/1.1`])).toEqual({ ...whole, end: BODY.length })
    for (let at = 1; at < BODY.length; at++) {
      expect(read([BODY.slice(0, at), BODY.slice(at)])).toEqual({ ...whole, end: BODY.length - at })
    }
    expect(read([...BODY])).toEqual({ ...whole, end: 1 })
  })

  it('may have sizes with zeros in front', () => {
    const [size, last] = ['5'.padStart(16, '0'), '0'.repeat(16)]
    expect(read([`${size}\r\nhello\r\n${last}\r\n\r\n`]).data).toBe('hello')
  })

  it.each([
    ['a size that is none', 'x\r\n'],
    ['a size below nothing', '-1\r\n'],
    ['a size with white space', '5 \r\nhello\r\n'],
    ['a size in the way of programs', '0x5\r\nhello\r\n'],
    ['a size beyond what numbers hold', 'fffffffffffffff\r\n'],
    ['a bare line feed behind a size', '5\nhello\r\n'],
    ['a chunk that is longer than its size', '4\r\nhello\r\n'],
    ['a chunk without its end', '5\r\nhello0\r\n\r\n'],
    ['a trailer that is none', '0\r\nno trailer\r\n\r\n'],
    ['a folded trailer', '0\r\nX-A: 1\r\n 2\r\n\r\n'],
    ['a bare line feed at the end', '0\r\n\n'],
    ['an endless line', `5;${'a'.repeat(17_000)}`],
    ['endless trailers', `0\r\n${'X-A: 1\r\n'.repeat(2_500)}`],
  ])('is no body with %s', (_name, bytes) => {
    expect(() => read([bytes])).toThrow()
    expect(() => read([...bytes])).toThrow()
  })
})
