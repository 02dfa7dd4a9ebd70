import { EventType } from '@wrenn/protocol/guest'
import { describe, expect, it } from 'vitest'
import { EventQueue } from './event-queue.js'

const event = (name: string, type = EventType.CREATE) => ({ name, type, path: `/${name}` })

describe('EventQueue', () => {
  it('gives events once, in order, and merges repeated writes', () => {
    const queue = new EventQueue()
    for (const each of [event('a'), event('a', EventType.WRITE), event('a', EventType.WRITE), event('b')])
      queue.push(each)
    expect(queue.take().map(({ name, type }) => [name, type])).toEqual([
      ['a', EventType.CREATE],
      ['a', EventType.WRITE],
      ['b', EventType.CREATE],
    ])
    expect(queue.take()).toEqual([])
  })

  it('holds 10,000 events, then says once that some were lost, and goes on', () => {
    const queue = new EventQueue()
    for (let i = 0; i < 10_000; i++) queue.push(event(String(i)))
    expect(queue.take().length).toBe(10_000)
    for (let i = 0; i < 50_000; i++) queue.push(event(String(i)))
    expect(() => queue.take()).toThrow(expect.objectContaining({ code: 'limit_exceeded' }))
    expect(queue.take()).toEqual([])
    queue.push(event('again'))
    expect(queue.take().length).toBe(1)
  })

  it('wakes its reader for an event, for a wake-up and after silence', async () => {
    const queue = new EventQueue()
    const first = queue.wait(60_000)
    queue.push(event('a'))
    await first
    queue.take()
    const second = queue.wait(60_000)
    queue.wake()
    await second
    await queue.wait(1)
    expect(queue.take()).toEqual([])
  })
})
