import { describe, expect, it } from 'vitest'
import { Turns } from './turns.js'

/** A task that ends when it is told to. */
function held(log: string[], name: string) {
  let end = (): void => {}
  const ended = new Promise<void>((resolve) => {
    end = resolve
  })
  const task = async (): Promise<string> => {
    log.push(name)
    await ended
    return name
  }
  return { task, end }
}

describe('turns', () => {
  it('are given in the order they were asked for, so many at a time', async () => {
    const turns = new Turns(1)
    const log: string[] = []
    const [a, b, c] = ['a', 'b', 'c'].map((name) => held(log, name))
    const taken = [a, b, c].map((each) => turns.take('x', each?.task ?? (async () => '')))
    expect(log).toEqual(['a'])
    for (const each of [a, b, c]) each?.end()
    expect(await Promise.all(taken)).toEqual(['a', 'b', 'c'])
    expect(log).toEqual(['a', 'b', 'c'])
  })

  it('are not for who has left the queue', async () => {
    const turns = new Turns(1)
    const log: string[] = []
    const [first, left, last] = [held(log, 'first'), held(log, 'left'), held(log, 'last')]
    const client = new AbortController()
    const running = turns.take('x', first.task)
    const gone = turns.take('x', left.task, client.signal).catch((reason: unknown) => reason)
    const waiting = turns.take('x', last.task)
    client.abort('left')
    expect(await gone).toBe('left')
    first.end()
    last.end()
    expect(await Promise.all([running, waiting])).toEqual(['first', 'last'])
    expect(log).toEqual(['first', 'last'])
    await expect(turns.take('x', left.task, client.signal)).rejects.toBe('left')
    expect(await turns.take('x', async () => 'again')).toBe('again')
  })
})
