import { describe, expect, it } from 'vitest'
import { ArchiveFrameError, ArchiveUnframer, endFrame, frameHead } from './archive-frames.js'

const end = { notes: ['a: socket ignored'], error: { code: 'permission_denied', message: 'b: Permission denied' } }

function stream(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(parts.flatMap((part) => [...frameHead(part.length), ...part]).concat([...endFrame(end)]))
}

describe('an archive in frames', () => {
  it.each([1, 2, 4, 5, 7, 1_000])('comes out as it went in, %i bytes at a time', (size) => {
    const [one, two] = [Uint8Array.from({ length: 300 }, (_, i) => i % 256), Uint8Array.of(1, 2, 3)]
    const bytes = stream(one, new Uint8Array(0), two)
    const unframer = new ArchiveUnframer()
    const found: number[] = []
    for (let at = 0; at < bytes.length; at += size) {
      expect(unframer.end).toBeUndefined()
      for (const piece of unframer.push(bytes.subarray(at, at + size))) found.push(...piece)
    }
    expect(found).toEqual([...one, ...two])
    expect(unframer.end).toEqual(end)
  })

  it('has no end when it was cut, wherever that was', () => {
    const bytes = stream(Uint8Array.of(1, 2, 3))
    for (let length = 0; length < bytes.length; length++) {
      const unframer = new ArchiveUnframer()
      Array.from(unframer.push(bytes.subarray(0, length)))
      expect(unframer.end).toBeUndefined()
    }
  })

  it.each([
    ['of a kind that there is not', [7, 0, 0, 0, 1], 'not an archive in frames'],
    ['longer than any of ours', [0, 255, 0, 0, 1], 'not an archive in frames'],
    ['behind the end', [...endFrame(end), 1], 'after the end'],
    ['whose end is no JSON', [1, 0, 0, 0, 2, 0x7b, 0x7b], 'something else than an end'],
    ['whose end is no object', [1, 0, 0, 0, 1, 0x37], 'something else than an end'],
  ])('is not anything with a frame %s', (_, bytes, message) => {
    const unframe = () => Array.from(new ArchiveUnframer().push(Uint8Array.from(bytes)))
    expect(unframe).toThrow(ArchiveFrameError)
    expect(unframe).toThrow(expect.objectContaining({ code: 'guest_error', message: expect.stringContaining(message) }))
  })
})
