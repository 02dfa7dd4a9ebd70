import type { BuildLine, Wrenn } from '@wrenn/sdk'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { LogFeed } from './log-feed.svelte.js'

// Without the compiler of Svelte, states are plain fields.
const plain = <Value>(value: Value): Value => value
beforeAll(() => {
  vi.stubGlobal('$state', Object.assign(plain, { raw: plain }))
})
afterAll(() => {
  vi.unstubAllGlobals()
})

const line = (message: string): BuildLine => ({ at: new Date(0), level: 'info', step: '1', message })
const all = ['one', 'two', 'three'].map(line)
const asked: number[] = []
let torn = 0

/** Gives two lines and breaks, as often as `torn` says; then all that are left. */
const templates = {
  async *followBuild(_id: string, { from = 0 }: { from?: number }) {
    asked.push(from)
    if (torn > 0) {
      torn -= 1
      yield* all.slice(from, 2)
      throw new Error('The connection broke.')
    }
    yield* all.slice(from)
  },
}
const feedOf = () => new LogFeed({ templates } as unknown as Pick<Wrenn, 'templates'>, 'bld-1') // no other method is used

beforeEach(() => {
  vi.useFakeTimers()
  asked.length = 0
  torn = 0
})
afterEach(() => {
  vi.useRealTimers()
})

describe('the log of a build', () => {
  it('is whole once it has ended', async () => {
    const feed = feedOf()
    await feed.follow(new AbortController().signal)
    expect([feed.lines, feed.isWhole, feed.failure]).toEqual([all, true, undefined])
  })

  it('goes on after the last line that came, and says meanwhile that it does not come', async () => {
    torn = 1
    const feed = feedOf()
    const followed = feed.follow(new AbortController().signal)
    await vi.advanceTimersByTimeAsync(100)
    expect([feed.lines.length, feed.failure?.sentence]).toEqual([2, 'The connection broke.'])
    await vi.advanceTimersByTimeAsync(3_000)
    await followed
    expect([asked, feed.lines, feed.failure]).toEqual([[0, 2], all, undefined])
  })

  it('is left alone by who does not look any more, and taken up again', async () => {
    torn = 1
    const feed = feedOf()
    const ended = new AbortController()
    const followed = feed.follow(ended.signal)
    await vi.advanceTimersByTimeAsync(100)
    ended.abort()
    await followed
    expect(feed.isWhole).toBe(false)
    await feed.follow(new AbortController().signal)
    expect([asked, feed.lines]).toEqual([[0, 2], all])
  })
})
