import { AppError } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { pathNames } from './path.js'

describe('the path that a diff is limited to', () => {
  it('is taken apart byte by byte', () => {
    expect(pathNames('/a//b/./c/')).toEqual(['a', 'b', 'c'])
    expect(pathNames('/ü')).toEqual(['\xc3\xbc'])
    expect(pathNames('/odd-\ufffdff/x')).toEqual(['odd-\xff', 'x'])
    expect(pathNames(undefined)).toEqual([])
    expect(pathNames('/')).toEqual([])
  })

  it.each(['relative', '/a/../b'])('is refused as %s', (path) => {
    expect(() => pathNames(path)).toThrow(AppError)
  })
})
