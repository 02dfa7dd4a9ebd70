import { describe, expect, it } from 'vitest'
import { memo } from './memo.js'

describe('what is read of a text', () => {
  it('is read once, unless it is long or was refused', () => {
    const read: string[] = []
    const lengthOf = memo((text) => {
      read.push(text)
      if (text === 'bad') throw new Error('refused')
      return text.length
    }, 4)
    expect([lengthOf('a'), lengthOf('a'), lengthOf('longer'), lengthOf('longer')]).toEqual([1, 1, 6, 6])
    for (const _time of [1, 2]) expect(() => lengthOf('bad')).toThrow('refused')
    expect(read).toEqual(['a', 'longer', 'longer', 'bad', 'bad'])
  })

  it('is forgotten before there is too much of it', () => {
    let count = 0
    const lengthOf = memo((text) => {
      count += 1
      return text.length
    }, 10)
    for (let at = 0; at <= 1_000; at++) lengthOf(String(at))
    lengthOf('0')
    lengthOf('1000')
    expect(count).toBe(1_002)
  })
})
