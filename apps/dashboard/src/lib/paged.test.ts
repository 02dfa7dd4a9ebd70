import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { Paged } from './paged.svelte.js'

// Without the compiler of Svelte, states are plain fields.
const plain = <Value>(value: Value): Value => value
beforeAll(() => {
  vi.stubGlobal('$state', Object.assign(plain, { raw: plain }))
})
afterAll(() => {
  vi.unstubAllGlobals()
})

async function* upTo(count: number, failsAt = Number.POSITIVE_INFINITY): AsyncGenerator<number> {
  for (let n = 1; n <= count; n++) {
    if (n === failsAt) throw new Error('away')
    yield n
  }
}

describe('a long list', () => {
  it('is shown fifty at a time, to its end', async () => {
    const list = new Paged<number>()
    await list.begin(upTo(70))
    expect([list.items.length, list.isWhole, list.isLoading]).toEqual([50, false, false])
    await list.more()
    expect([list.items.at(-1), list.isWhole]).toEqual([70, true])
  })

  it('is the one that was begun last, whichever comes first', async () => {
    const list = new Paged<number>()
    const slow = list.begin(upTo(3))
    await Promise.all([slow, list.begin(upTo(1))])
    expect(list.items).toEqual([1])
  })

  it('tells why it could not be read, and shows nothing of another one beside', async () => {
    const list = new Paged<number>()
    await list.begin(upTo(3))
    await list.begin(upTo(3, 1))
    expect([list.items, list.failure?.sentence]).toEqual([[], 'away'])
  })

  it('stays as it is where looking again fails, or somebody has gone back in it', async () => {
    const list = new Paged<number>()
    await list.begin(upTo(60))
    await list.refresh(() => upTo(60, 1))
    expect([list.items.length, list.failure?.sentence]).toEqual([50, 'away'])
    await list.refresh(() => upTo(60))
    expect(list.failure).toBeUndefined()
    await list.more()
    await list.refresh(() => upTo(2))
    expect(list.items.length).toBe(60)
  })
})
