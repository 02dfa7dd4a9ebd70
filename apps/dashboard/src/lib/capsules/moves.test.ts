import { describe, expect, it } from 'vitest'
import { isPossible } from './moves.js'

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
