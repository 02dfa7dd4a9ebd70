import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { forEachParallel } from './parallel.js'

const { signal } = new AbortController()

describe('work in parallel', () => {
  it('takes no more than its limit at a time, and all in the end', async () => {
    let running = 0
    let most = 0
    const done: number[] = []
    await forEachParallel(Array(20).keys(), { limit: 3, signal }, async (item) => {
      most = Math.max(most, ++running)
      for (let turns = 0; turns < item % 4; turns++) await turn()
      running--
      done.push(item)
    })
    expect(most).toBe(3)
    expect(done.sort((a, b) => a - b)).toEqual([...Array(20).keys()])
  })

  it('ends the others with the first failure and throws that one when all have ended', async () => {
    let running = 0
    const failure = new Error('the second')
    const work = async (item: number, ended: AbortSignal): Promise<void> => {
      running++
      try {
        if (item === 1) throw failure
        while (!ended.aborted) await turn()
        throw new Error('ended by it')
      } finally {
        running--
      }
    }
    await expect(forEachParallel([0, 1, 2, 3], { limit: 4, signal }, work)).rejects.toBe(failure)
    expect(running).toBe(0)
  })

  it('throws what its items throw, and the reason of its signal', async () => {
    const failure = new Error('no more')
    async function* items() {
      yield 1
      throw failure
    }
    await expect(forEachParallel(items(), { limit: 2, signal }, () => turn())).rejects.toBe(failure)
    await expect(forEachParallel([1], { limit: 2, signal: AbortSignal.abort(failure) }, () => turn())).rejects.toBe(
      failure,
    )
  })
})
