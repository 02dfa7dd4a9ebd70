import { AppError } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { pathText } from './change.js'
import { pathNames } from './path.js'

describe('a path for the wire', () => {
  it('is text where it is UTF-8 and base64 elsewhere', () => {
    expect(pathText(Buffer.from('/tmp/zürich\n'))).toEqual({ path: '/tmp/zürich\n', encoding: 'utf-8' })
    const odd = Buffer.from([0x2f, 0xff])
    expect(pathText(odd)).toEqual({ path: odd.toString('base64'), encoding: 'base64' })
  })
})

describe('the path that a diff is limited to', () => {
  it('is taken apart byte by byte', () => {
    expect(pathNames('/a//b/./c/')).toEqual(['a', 'b', 'c'])
    expect(pathNames('/ü')).toEqual(['\xc3\xbc'])
    expect(pathNames(undefined)).toEqual([])
    expect(pathNames('/')).toEqual([])
  })

  it.each(['relative', '/a/../b'])('is refused as %s', (path) => {
    expect(() => pathNames(path)).toThrow(AppError)
  })
})
