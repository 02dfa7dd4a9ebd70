import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { Room } from './room.js'

const { signal } = new AbortController()

describe('room that is shared', () => {
  it('is given in the order of asking, and never more of it than there is', async () => {
    const room = new Room(100)
    const entered: number[] = []
    const large = await room.take(60, signal)
    const small = await room.take(40, signal)
    const asked = [500, 10, 30].map(async (bytes) => {
      using _ = await room.take(bytes, signal)
      entered.push(bytes)
      await turn()
    })
    small[Symbol.dispose]()
    small[Symbol.dispose]() // counts once
    await turn()
    expect(entered).toEqual([]) // the first wants all of it
    large[Symbol.dispose]()
    await Promise.all(asked)
    expect(entered).toEqual([500, 10, 30])
    expect(await room.take(100, signal)).toBeDefined()
  })

  it('is not kept for who gives up', async () => {
    const room = new Room(100)
    using _ = await room.take(90, signal)
    const gaveUp = new AbortController()
    const reason = new Error('no longer wanted')
    const large = room.take(100, gaveUp.signal)
    const small = room.take(10, signal)
    gaveUp.abort(reason)
    await expect(large).rejects.toBe(reason)
    expect(await small).toBeDefined()
    await expect(room.take(1, AbortSignal.abort(reason))).rejects.toBe(reason)
  })
})
