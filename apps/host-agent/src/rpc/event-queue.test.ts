import { describe, expect, it } from 'vitest'
import { EventQueue } from './event-queue.js'

describe('EventQueue', () => {
  it('hands out events in order, those pushed before and those pushed while waiting', async () => {
    const queue = new EventQueue<number>()
    const { signal } = new AbortController()
    queue.push(1)
    expect(await queue.next(1_000, signal)).toBe(1)
    const waiting = queue.next(60_000, signal)
    queue.push(2)
    queue.push(3)
    expect([await waiting, await queue.next(1_000, signal)]).toEqual([2, 3])
  })

  it('gives undefined when the time is over or the reader is gone', async () => {
    const queue = new EventQueue<number>()
    expect(await queue.next(1, new AbortController().signal)).toBeUndefined()
    const controller = new AbortController()
    const waiting = queue.next(60_000, controller.signal)
    controller.abort()
    expect(await waiting).toBeUndefined()
    expect(await queue.next(60_000, controller.signal)).toBeUndefined()
  })
})
