import { describe, expect, it } from 'vitest'
import { decodeBinaryFrame, encodeBinaryFrame } from './binary-frames.js'

describe('binary frames', () => {
  it('come back as they went in, also from the middle of a larger buffer', () => {
    const frame = encodeBinaryFrame('stderr', 5_000_000_000, new Uint8Array([1, 2, 255]))
    const buffer = new Uint8Array(frame.length + 7)
    buffer.set(frame, 7)
    expect(decodeBinaryFrame(buffer.subarray(7))).toEqual({
      kind: 'stderr',
      offset: 5_000_000_000,
      payload: new Uint8Array([1, 2, 255]),
    })
  })

  it('are refused when too short or of an unknown kind', () => {
    expect(decodeBinaryFrame(new Uint8Array(8))).toBeUndefined()
    expect(decodeBinaryFrame(new Uint8Array(9).fill(9))).toBeUndefined()
  })
})
