import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { UnclearRequest } from './request-head.js'
import { MAXIMUM_HEAD_BYTES, type RequestPart, RequestReader } from './request-reader.js'

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1')
const get = (host: string, more = '', target = '/'): string => `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n${more}\r\n`
const hosts = (parts: readonly RequestPart[]): unknown[] =>
  parts.flatMap((part) => (part.kind === 'head' ? [part.head.host] : []))
const text = (parts: readonly RequestPart[]): string =>
  Buffer.concat(parts.map((part) => part.bytes)).toString('latin1')
const read = (...pieces: readonly string[]): readonly RequestPart[] => {
  const reader = new RequestReader()
  return pieces.flatMap((piece) => reader.push(bytes(piece)))
}

describe('what a client sends by HTTP', () => {
  it.each([
    ['a name', get('Example.org'), ['example.org']],
    ['a name with a port', get('example.org:8080'), ['example.org']],
    ['an address', get('203.0.113.7'), [undefined]],
    ['an address of IPv6', get('[2001:db8::1]:80'), [undefined]],
    ['none', 'GET / HTTP/1.0\r\n\r\n', [undefined]],
    ['what is no name', get('exa mple.org'), [undefined]],
    ['a target that says the same', get('example.org', '', 'http://example.org:80/x'), ['example.org']],
    ['a target alone', 'GET http://example.org/ HTTP/1.0\r\n\r\n', ['example.org']],
    ['requests behind each other', get('a.example') + get('b.example'), ['a.example', 'b.example']],
    [
      'one behind a body',
      `${get('a.example', 'Content-Length: 4\r\n')}GET ${get('b.example')}`,
      ['a.example', 'b.example'],
    ],
    [
      'one behind a body in chunks',
      `${get('a.example', 'Transfer-Encoding: Chunked\r\n')}4;x="y"\r\nGET \r\n0\r\nTrailer: x\r\n\r\n${get('b.example')}`,
      ['a.example', 'b.example'],
    ],
    [
      'a request that is none, in a body',
      `${get('a.example', 'Content-Length: 35\r\n')}${get('evil.example').slice(0, 35)}`,
      ['a.example'],
    ],
  ])('tells of %s, and is passed on as it is', (_what, sent, told) => {
    const parts = read(sent)
    expect(hosts(parts)).toEqual(told)
    expect(text(parts)).toBe(sent)
  })

  it.each([
    ['two Hosts', get('a.example', 'Host: b.example\r\n')],
    ['a Host that differs from the target', get('a.example', '', 'http://b.example/')],
    ['a target with a user', get('b.example', '', 'http://a.example@b.example/').replace('Host: b', 'Host: a')],
    ['CONNECT', 'CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n'],
    ['a target of no form', get('a.example', '', 'a.example')],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\n'],
    ['a version that does not exist', 'GET / HTTP/1.2\r\nHost: a.example\r\n\r\n'],
    ['a field that goes on in the next line', get('a.example', 'X: y\r\n z\r\n')],
    ['a space before the colon', get('a.example', 'Host : b.example\r\n')],
    ['a line that ends in a line feed alone', get('a.example', 'X: y\nHost: b.example\r\n')],
    ['a carriage return alone', get('a.example', 'X: y\rHost: b.example\r\n')],
    ['a zero', get('a.example', 'X: \0\r\n')],
    ['two lengths', get('a.example', 'Content-Length: 4\r\nContent-Length: 5\r\n')],
    ['a length and chunks', get('a.example', 'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n')],
    ['a length with a sign', get('a.example', 'Content-Length: +4\r\n')],
    ['a list of lengths', get('a.example', 'Content-Length: 4, 4\r\n')],
    ['another coding', get('a.example', 'Transfer-Encoding: gzip, chunked\r\n')],
    ['a coding that hides', get('a.example', 'Transfer-Encoding: xchunked\r\n')],
    ['chunks in HTTP/1.0', 'POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['a chunk without a size', `${get('a.example', 'Transfer-Encoding: chunked\r\n')}\r\n`],
    ['a chunk whose size has a prefix', `${get('a.example', 'Transfer-Encoding: chunked\r\n')}0x4\r\n`],
    [
      'a chunk that is longer than it says',
      `${get('a.example', 'Transfer-Encoding: chunked\r\n')}1\r\nabc`.padEnd(200, 'x').concat('\r\n'),
    ],
    ['a size that ends in a line feed alone', `${get('a.example', 'Transfer-Encoding: chunked\r\n')}1\nx\r\n`],
    ['a later wish for another protocol', get('a.example') + get('a.example', 'Upgrade: websocket\r\n')],
    ['a head that is too long', get('a.example', `X: ${'x'.repeat(MAXIMUM_HEAD_BYTES)}\r\n`)],
    ['a head that is too long and has no end', 'x'.repeat(MAXIMUM_HEAD_BYTES + 1)],
  ])('is not passed on with %s', (_what, sent) => {
    expect(() => read(sent)).toThrow(UnclearRequest)
  })

  it('comes to the same in pieces of any size, and passes no byte of a head that is not whole', () => {
    const requests = fc.array(
      fc.constantFrom(
        get('a.example'),
        `${get('b.example', 'Content-Length: 11\r\n')}hello there`,
        `${get('c.example', 'Transfer-Encoding: chunked\r\n')}5\r\nhello\r\n00a;q\r\n there you\r\n0\r\n\r\n`,
      ),
      { minLength: 1, maxLength: 5 },
    )
    const sizes = fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1 })
    fc.assert(
      fc.property(requests, sizes, (sent, cuts) => {
        const whole = sent.join('')
        const pieces: string[] = []
        for (let at = 0, n = 0; at < whole.length; n += 1) {
          const size = cuts[n % cuts.length] ?? 1
          pieces.push(whole.slice(at, at + size))
          at += size
        }
        const parts = read(...pieces)
        expect(text(parts)).toBe(whole)
        expect(hosts(parts)).toEqual(hosts(read(whole)))
      }),
    )
  })

  it('names each host that a server would see, whatever is sent', () => {
    const fragments = [
      'GET / HTTP/1.1',
      'Host: a.example',
      'Host:b.example',
      '\r\n',
      '\r\n\r\n',
      '\n',
      '\r',
      ' ',
      'Content-Length: 3',
      'Transfer-Encoding: chunked',
      '0',
      '3',
      'abc',
      ':',
    ]
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...fragments), { maxLength: 30 }), (sent) => {
        const reader = new RequestReader()
        try {
          const parts = reader.push(bytes(sent.join('')))
          // At the begin of a line, as the most lenient of servers reads lines; in the value of another header it names nothing.
          const named = /^[ \t]*host[ \t]*:/gim
          for (const part of parts)
            if (part.kind === 'head') expect(text([part]).match(named)?.length ?? 0).toBeLessThan(2)
        } catch (error) {
          expect(error).toBeInstanceOf(UnclearRequest)
        }
      }),
      { numRuns: 3000 },
    )
  })

  describe('after a wish for another protocol', () => {
    const upgrade = (to: string): string => get('a.example', `Connection: Upgrade\r\nUpgrade: ${to}\r\n`)

    it('waits for the answer', () => {
      const reader = new RequestReader()
      expect(text(reader.push(bytes(`${upgrade('websocket')}frames`)))).toBe(upgrade('websocket'))
      expect(reader.isHolding).toBe(true)
      expect(text(reader.answered(true))).toBe('frames')
      expect(text(reader.push(bytes('GET / HTTP/1.1\r\nHost: b.example\r\n')))).toContain('b.example')
    })

    it('goes on with requests where the server stays with HTTP', () => {
      const reader = new RequestReader()
      reader.push(bytes(`${upgrade('h2c')}${get('b.example')}`))
      expect(hosts(reader.answered(false))).toEqual(['b.example'])
      expect(reader.isHolding).toBe(false)
    })

    it('goes no further with a protocol that has names of its own', () => {
      const reader = new RequestReader()
      reader.push(bytes(upgrade('h2c')))
      expect(() => reader.answered(true)).toThrow(UnclearRequest)
    })
  })
})
