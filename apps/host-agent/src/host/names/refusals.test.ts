import { describe, expect, it } from 'vitest'
import { Refusals } from './refusals.js'

const at = (name: string) => ({ name, address: '9.9.9.9', port: 443, reason: 'not_allowed' as const })
const names = (refusals: Refusals, source: string) => refusals.list(source).map(({ name, count }) => [name, count])

describe('refused attempts', () => {
  it('are counted by target, the newest first', () => {
    const refusals = new Refusals()
    for (const name of ['a', 'b', 'a']) refusals.note('one', at(name), 5)
    refusals.note('one', { ...at('a'), address: '8.8.8.8' }, 7)
    expect(names(refusals, 'one')).toEqual([
      ['a', 3],
      ['b', 1],
    ])
    expect(refusals.list('one')[0]).toEqual({ ...at('a'), address: '8.8.8.8', count: 3, lastAtMs: 7 })
    expect(refusals.list('two')).toEqual([])
  })

  it('are kept in bounds: the newest of each source, and none of a quiet one for a loud one’s', () => {
    const few = new Refusals({ perSource: 3, all: 25 })
    for (let n = 0; n < 30; n += 1) few.note('one', at(`${n}`))
    expect(few.list('one').map(({ name }) => name)).toEqual(['29', '28', '27'])
    const refusals = new Refusals({ perSource: 10, all: 25 })
    for (const source of ['one', 'two', 'three']) for (let n = 0; n < 30; n += 1) refusals.note(source, at(`${n}`))
    const kept = ['one', 'two', 'three'].map((source) => refusals.list(source).length)
    expect(kept.reduce((sum, count) => sum + count)).toBe(25)
    refusals.note('quiet', at('only'))
    expect(names(refusals, 'quiet')).toEqual([['only', 1]])
    for (let n = 0; n < 30; n += 1) refusals.note('one', at(`again ${n}`))
    expect(names(refusals, 'quiet')).toEqual([['only', 1]])
  })

  it('leave room when their source is forgotten', () => {
    const refusals = new Refusals({ perSource: 10, all: 10 })
    for (let n = 0; n < 10; n += 1) refusals.note('one', at(`${n}`))
    refusals.forget('one')
    expect(refusals.list('one')).toEqual([])
    for (let n = 0; n < 10; n += 1) refusals.note('two', at(`${n}`))
    expect(refusals.list('two')).toHaveLength(10)
  })
})
