import { describe, expect, it } from 'vitest'
import { treeRows } from './checkpoint-tree.js'

const point = (id: string, parentId?: string) => ({ id, parentId })
const shown = (points: readonly { id: string; parentId: string | undefined }[]) =>
  treeRows(points).map(({ checkpoint, depth }) => `${'-'.repeat(depth)}${checkpoint.id}`)

describe('treeRows', () => {
  it('keeps a line on one level and indents where ways part', () => {
    expect(shown([point('a'), point('b', 'a'), point('c', 'b'), point('d', 'b'), point('e', 'c')])).toEqual([
      'a',
      'b',
      '-c',
      '-e',
      '-d',
    ])
  })

  it('makes a root of one whose parent is gone', () => {
    expect(shown([point('b', 'gone'), point('c', 'b')])).toEqual(['b', 'c'])
  })

  it('has room for a very long line', () => {
    const line = Array.from({ length: 20_000 }, (_, index) =>
      point(`${index}`, index === 0 ? undefined : `${index - 1}`),
    )
    expect(treeRows(line)).toHaveLength(20_000)
  })
})
