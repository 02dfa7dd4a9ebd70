import { expect, it } from 'vitest'
import { groupBy } from './group-by.js'

it('keeps what has one key together, in its order', () => {
  expect([...groupBy([1, 2, 3, 5, 4], (each) => each % 2)]).toEqual([
    [1, [1, 3, 5]],
    [0, [2, 4]],
  ])
})
