import { describe, expect, it } from 'vitest'
import { KeyedMutex } from './mutex.js'

/** A task that ends when it is told to. */
function held() {
  let end = (): void => {}
  const ended = new Promise<void>((resolve) => {
    end = resolve
  })
  return { ended, end }
}

describe('turns by key', () => {
  it('come one after another for one key, also after one that failed, and side by side for others', async () => {
    const turns = new KeyedMutex()
    const seen: string[] = []
    const { ended, end } = held()
    const first = turns.run('a', async () => {
      await ended
      seen.push('first')
      throw new Error('failed')
    })
    const second = turns.run('a', async () => void seen.push('second'))
    await turns.run('b', async () => void seen.push('other'))
    end()
    await expect(first).rejects.toThrow('failed')
    await second
    expect(seen).toEqual(['other', 'first', 'second'])
  })

  it('are given up by who is aborted while it waits, and nobody passes for that', async () => {
    const turns = new KeyedMutex()
    const seen: string[] = []
    const { ended, end } = held()
    const abort = new AbortController()
    const first = turns.run('a', async () => {
      await ended
      seen.push('first')
    })
    const second = turns.run('a', async () => void seen.push('second'), abort.signal)
    const third = turns.run('a', async () => void seen.push('third'), new AbortController().signal)
    abort.abort(new Error('given up'))
    await expect(second).rejects.toThrow('given up')
    await expect(turns.run('a', async () => {}, abort.signal)).rejects.toThrow('given up')
    expect(seen).toEqual([])
    end()
    await Promise.all([first, third])
    expect(seen).toEqual(['first', 'third'])
  })
})
