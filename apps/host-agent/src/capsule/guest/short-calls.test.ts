import { describe, expect, it } from 'vitest'
import { ShortCalls } from './short-calls.js'

describe('short calls', () => {
  it('are waited for by whoever wants to stop their guest, and only those that run already', async () => {
    const calls = new ShortCalls()
    let finish = (): void => {}
    const said: string[] = []
    const call = calls
      .run('a', () => new Promise<void>((resolve) => (finish = resolve)))
      .then(() => said.push('answered'))
    const settled = calls.settled('a', 60_000).then(() => said.push('settled'))
    await calls.settled('b', 60_000)
    expect(said).toEqual([])
    finish()
    await Promise.all([call, settled])
    expect(said).toEqual(['answered', 'settled'])
  })

  it('that never end hold nobody up for ever, and failed ones count as ended', async () => {
    const calls = new ShortCalls()
    void calls.run('a', () => new Promise<void>(() => {}))
    await calls.settled('a', 5)
    await expect(calls.run('b', () => Promise.reject(new Error('refused')))).rejects.toThrow('refused')
    await calls.settled('b', 60_000)
  })
})
