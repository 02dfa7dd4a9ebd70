import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { FairQueue, type FairQueueLimits } from './fair-queue.js'

const LIMITS: FairQueueLimits = {
  waiting: 100,
  waitingPerClient: 60,
  running: 4,
  runningPerClient: 3,
  runningAssured: 1,
}

function make(limits: Partial<FairQueueLimits> = {}) {
  const begun: string[] = []
  const dropped: string[] = []
  const ends = new Map<string, () => void>()
  const queue = new FairQueue<string>(
    { ...LIMITS, ...limits },
    async (task) => {
      begun.push(task)
      await new Promise<void>((resolve) => ends.set(task, resolve))
    },
    (task) => dropped.push(task),
  )
  const push = (client: string, count: number): boolean[] =>
    Array.from({ length: count }, (_, index) => queue.push(client, `${client}${index}`))
  const end = async (task: string): Promise<void> => {
    ends.get(task)?.()
    await turn()
    await turn()
  }
  return { queue, begun, dropped, push, end }
}

describe('a fair queue', () => {
  it('serves clients in turn, each in its own order', async () => {
    const { begun, push } = make({ running: 100, runningPerClient: 100 })
    push('a', 3)
    push('b', 2)
    push('c', 1)
    await turn()
    expect(begun).toEqual(['a0', 'b0', 'c0', 'a1', 'b1', 'a2'])
  })

  it('runs no more at a time than it may, and goes on as places come free', async () => {
    const { begun, push, end } = make()
    push('a', 5)
    push('b', 5)
    await turn()
    expect(begun).toEqual(['a0', 'b0', 'a1', 'b1'])
    await end('b0')
    await end('b1')
    expect(begun).toEqual(['a0', 'b0', 'a1', 'b1', 'a2', 'b2'])
  })

  it('keeps places for a client that comes while others have them all', async () => {
    const { begun, push } = make()
    push('a', 5)
    push('b', 5)
    await turn()
    push('c', 2)
    await turn()
    expect(begun.slice(4)).toEqual(['c0'])
  })

  it('refuses what one client has too much, and drops of the one with the most when all have', async () => {
    const { dropped, push } = make({ running: 0, runningAssured: 0 })
    expect(push('a', 61).filter((taken) => !taken)).toHaveLength(1)
    expect(push('b', 40).every((taken) => taken)).toBe(true)
    expect(push('c', 2)).toEqual([true, true])
    expect(dropped).toEqual(['a59', 'a58'])
  })

  it('remembers nothing of a client that has come to its end', async () => {
    const { queue, begun, push, end } = make()
    push('a', 1)
    await turn()
    expect(queue.clients).toBe(1)
    await end('a0')
    expect([begun, queue.clients]).toEqual([['a0'], 0])
  })

  it('begins more than a turn takes', async () => {
    const { begun, push, queue } = make({ running: 100, runningPerClient: 100 })
    push('a', 60)
    for (let turns = 0; turns < 5; turns += 1) await turn()
    expect([begun.length, queue.clients]).toEqual([60, 1])
  })
})
