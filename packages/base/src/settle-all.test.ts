import { describe, expect, it } from 'vitest'
import { settleAll } from './settle-all.js'

describe('settleAll', () => {
  it('gives the results in the order of the tasks', async () => {
    expect(await settleAll([Promise.resolve(1), Promise.resolve('two')])).toEqual([1, 'two'])
  })

  it('reports a failure only when the other tasks have ended too', async () => {
    const ended: string[] = []
    const slow = new Promise<void>((resolve) => setImmediate(resolve)).then(() => ended.push('slow'))
    await expect(settleAll([Promise.reject(new Error('fast')), slow])).rejects.toThrow('fast')
    expect(ended).toEqual(['slow'])
  })
})
