import { describe, expect, it } from 'vitest'
import { ArchiveUnframer, endFrame, frameHead } from './archive-frames.js'

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

  it('is not anything else', () => {
    const unframe = (bytes: Uint8Array) => () => Array.from(new ArchiveUnframer().push(bytes))
    expect(unframe(Uint8Array.of(7, 0, 0, 0, 1))).toThrow('not an archive in frames')
    expect(unframe(Uint8Array.of(0, 255, 0, 0, 1))).toThrow('not an archive in frames')
    expect(unframe(Uint8Array.of(...endFrame(end), 1))).toThrow('after the end')
  })
})
