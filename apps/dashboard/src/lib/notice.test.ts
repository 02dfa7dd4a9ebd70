import { describe, expect, it } from 'vitest'
import { leaveNotice, takeNotice } from './notice.js'

describe('a notice', () => {
  it('is for the next page alone', () => {
    const kept = new Map<string, string>()
    const storage = {
      getItem: (name: string) => kept.get(name) ?? null,
      setItem: (name: string, text: string) => void kept.set(name, text),
      removeItem: (name: string) => void kept.delete(name),
    }
    expect(takeNotice(storage)).toBeUndefined()
    leaveNotice(storage, 'You are not in it any more.')
    expect(takeNotice(storage)).toBe('You are not in it any more.')
    expect(takeNotice(storage)).toBeUndefined()
  })
})
