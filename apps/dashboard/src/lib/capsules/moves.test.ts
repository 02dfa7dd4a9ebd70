import { describe, expect, it } from 'vitest'
import { isPossible, movesOf } from './moves.js'

describe('isPossible', () => {
  it('offers what the state allows', () => {
    expect([isPossible('pause', 'running'), isPossible('resume', 'running'), isPossible('destroy', 'running')]).toEqual(
      [true, false, true],
    )
    expect([isPossible('pause', 'paused'), isPossible('resume', 'paused'), isPossible('destroy', 'paused')]).toEqual([
      false,
      true,
      true,
    ])
    expect(isPossible('resume', 'error')).toBe(true)
  })

  it('offers nothing for one that is about to be gone', () => {
    expect([isPossible('destroy', 'stopping'), isPossible('pause', 'stopping')]).toEqual([false, false])
  })
})

describe('movesOf', () => {
  it('has hibernation where the platform can, out of the states that allow it', () => {
    const able = movesOf({ has: (feature) => feature === 'hibernation' })
    expect(able).toEqual(['pause', 'hibernate', 'resume', 'destroy'])
    expect(movesOf({ has: () => false })).toEqual(['pause', 'resume', 'destroy'])
    expect(able.filter((move) => isPossible(move, 'running'))).toEqual(['pause', 'hibernate', 'destroy'])
    expect(able.filter((move) => isPossible(move, 'paused'))).toEqual(['hibernate', 'resume', 'destroy'])
    expect(able.filter((move) => isPossible(move, 'hibernated'))).toEqual(['resume', 'destroy'])
  })
})
