import { describe, expect, it } from 'vitest'
import { sortedNames } from './names.js'

const mapOf = (names: readonly string[]): Map<string, number> => new Map(names.map((name, index) => [name, index]))

describe('sorted names', () => {
  it('come once each, in the order of their bytes', async () => {
    const names = await sortedNames([mapOf(['b', 'a', '\xff']), undefined, mapOf(['a-b', 'b', 'B']), mapOf([])])
    expect(names).toEqual(['B', 'a', 'a-b', 'b', '\xff'])
    expect(await sortedNames([])).toEqual([])
  })

  it('are the same for large folders as for small ones', async () => {
    const all = Array.from({ length: 20_000 }, (_, index) => `name-${(index * 7919) % 20_000}`)
    const names = await sortedNames([mapOf(all.slice(0, 13_000)), mapOf(all.slice(9000))])
    expect(names).toEqual([...all].sort())
  })
})
