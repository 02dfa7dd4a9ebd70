import { describe, expect, it } from 'vitest'
import { Admission } from './admission.js'

describe('Admission', () => {
  it('runs no more than its limit at once, in the order asked, and goes on after a failure', async () => {
    const admission = new Admission(2)
    const order: number[] = []
    let running = 0
    let most = 0
    const tasks = [1, 2, 3, 4, 5].map((id) =>
      admission.run(async () => {
        order.push(id)
        most = Math.max(most, ++running)
        await new Promise((resolve) => setImmediate(resolve))
        running--
        if (id === 2) throw new Error('two')
        return id
      }),
    )
    const results = await Promise.allSettled(tasks)
    expect(results.map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'fulfilled',
      'fulfilled',
      'fulfilled',
    ])
    expect({ order, most }).toEqual({ order: [1, 2, 3, 4, 5], most: 2 })
  })
})
