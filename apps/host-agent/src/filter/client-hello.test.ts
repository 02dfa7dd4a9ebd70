import { once } from 'node:events'
import { Duplex } from 'node:stream'
import { connect } from 'node:tls'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readClientHello, type Sighting } from './client-hello.js'

/** What this Node.js says first. */
async function helloFor(servername: string | undefined): Promise<Buffer> {
  const line = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, callback) {
      line.emit('said', chunk)
      callback()
    },
  })
  const said = once(line, 'said')
  const socket = connect({ socket: line, ...(servername === undefined ? {} : { servername }) }).on('error', () => {})
  const [hello] = await said
  socket.destroy()
  return hello
}

/** The same handshake bytes in records of `size`. */
function inRecords(hello: Buffer, size: number): Buffer {
  const body = hello.subarray(5)
  const records: Buffer[] = []
  for (let at = 0; at < body.length; at += size) {
    const part = body.subarray(at, at + size)
    records.push(Buffer.from([22, 3, 1, part.length >> 8, part.length & 255]), part)
  }
  return Buffer.concat(records)
}

const extension = (type: number, data: readonly number[]): number[] => [
  type >> 8,
  type & 255,
  data.length >> 8,
  data.length & 255,
  ...data,
]
const entry = (name: string, kind = 0): number[] => [kind, name.length >> 8, name.length & 255, ...Buffer.from(name)]
const names = (...entries: readonly number[][]): number[] => {
  const list = entries.flat()
  return extension(0, [list.length >> 8, list.length & 255, ...list])
}
function helloWith(...extensions: readonly number[][]): Buffer {
  const all = extensions.flat()
  const body = [3, 3, ...Array<number>(32).fill(7), 0, 0, 2, 19, 1, 1, 0, all.length >> 8, all.length & 255, ...all]
  const message = [1, 0, body.length >> 8, body.length & 255, ...body]
  return Buffer.from([22, 3, 1, message.length >> 8, message.length & 255, ...message])
}

const nothing: Sighting = { seen: 'nothing' }

describe('a ClientHello', () => {
  it('tells the server’s name', async () => {
    expect(readClientHello(await helloFor('Example.org'))).toEqual({ seen: 'name', name: 'example.org' })
    expect(readClientHello(await helloFor(undefined))).toEqual(nothing)
  })

  it('tells it however it is cut into records, and once the last byte is there', async () => {
    const hello = await helloFor('www.example.org')
    for (const size of [16_384, 400, 90, 11]) {
      const bytes = inRecords(hello, size)
      expect(readClientHello(bytes)).toEqual({ seen: 'name', name: 'www.example.org' })
      for (let length = 0; length < bytes.length; length += 1) {
        const sighting = readClientHello(bytes.subarray(0, length))
        if (sighting.seen !== 'more') throw new Error(`${length} of ${bytes.length} bytes told ${sighting.seen}`)
        expect(sighting.atLeastBytes).toBeGreaterThan(length)
        expect(sighting.atLeastBytes).toBeLessThanOrEqual(bytes.length)
      }
    }
  })

  it('has the name of its outer one where another is encrypted inside', () => {
    const encrypted = extension(0xfe0d, Array<number>(200).fill(9))
    expect(readClientHello(helloWith(encrypted, names(entry('outer.example'))))).toEqual({
      seen: 'name',
      name: 'outer.example',
    })
  })

  it.each([
    ['two names', helloWith(names(entry('a.example'), entry('b.example')))],
    ['two lists of names', helloWith(names(entry('a.example')), names(entry('b.example')))],
    ['a name of another kind', helloWith(names(entry('a.example', 1)))],
    ['an address for a name', helloWith(names(entry('203.0.113.7')))],
    ['a name with a zero in it', helloWith(names(entry('a.example\0.evil.example')))],
    ['an empty name', helloWith(names(entry('')))],
    ['no extensions', helloWith()],
    ['an alert', Buffer.from([21, 3, 1, 0, 2, 2, 40])],
    ['another handshake message', Buffer.from([22, 3, 1, 0, 4, 2, 0, 0, 0])],
    ['an empty record', Buffer.from([22, 3, 1, 0, 0])],
    ['a record that is too long', Buffer.from([22, 3, 1, 255, 255])],
    ['more records than a hello has', inRecords(helloWith(names(entry('a.example'))), 1)],
  ])('tells nothing by %s', (_what, bytes) => {
    expect(readClientHello(bytes)).toEqual(nothing)
  })

  it('is never read beyond its end, and tells a name only where it has one', () => {
    const hello = helloWith(names(entry('good.example')))
    const damaged = fc
      .array(fc.tuple(fc.nat(hello.length - 1), fc.nat(255)), { maxLength: 6 })
      .map((changes) => changes.reduce((bytes, [at, value]) => bytes.fill(value, at, at + 1), Buffer.from(hello)))
    fc.assert(
      fc.property(
        fc.oneof(
          damaged,
          fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)),
        ),
        (bytes) => {
          const sighting = readClientHello(bytes)
          if (sighting.seen === 'name') expect(bytes.toString('latin1').toLowerCase()).toContain(sighting.name)
        },
      ),
      { numRuns: 2000 },
    )
  })
})
