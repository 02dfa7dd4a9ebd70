import { describe, expect, it } from 'vitest'
import { type Envelope, EnvelopeReader } from './envelopes.js'

function envelope(text: string, flags = 0): Buffer {
  const head = Buffer.alloc(5)
  head[0] = flags
  head.writeUInt32BE(Buffer.byteLength(text), 1)
  return Buffer.concat([head, Buffer.from(text)])
}

const read = (chunks: readonly Uint8Array[]): (string | number)[] => {
  const found: Envelope[] = []
  const reader = new EnvelopeReader(8, (each) => found.push(each))
  for (const chunk of chunks) reader.push(chunk)
  return found.map(({ bytes, length, isCompressed }) =>
    bytes === undefined ? length : `${Buffer.from(bytes)}${isCompressed ? ' (packed)' : ''}`,
  )
}

describe('an envelope reader', () => {
  const all = Buffer.concat([
    envelope('first'),
    envelope(''),
    envelope('much too long'),
    envelope('zip', 1),
    envelope('last'),
  ])

  it('finds each message, and of long ones the length', () => {
    expect(read([all])).toEqual(['first', '', 13, 'zip (packed)', 'last'])
  })

  it.each([1, 2, 3, 7])('wherever they are cut: every %i bytes', (size) => {
    const chunks = Array.from({ length: Math.ceil(all.length / size) }, (_, n) =>
      all.subarray(n * size, (n + 1) * size),
    )
    expect(read(chunks)).toEqual(['first', '', 13, 'zip (packed)', 'last'])
  })

  it('tells nothing of what is not complete', () => {
    expect(read([envelope('first').subarray(0, 9)])).toEqual([])
  })
})
