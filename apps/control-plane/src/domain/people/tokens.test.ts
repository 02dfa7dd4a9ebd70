import { sessionIds } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { digestOf, isAncestor, newCode, newSecret, nextSecret, parseRefreshToken, refreshToken } from './tokens.js'

describe('codes', () => {
  it('are words of a command line, whatever they begin with', () => {
    for (const code of Array.from({ length: 500 }, newCode)) expect(code).toMatch(/^[0-9a-f]{64}$/)
  })
})

describe('refresh tokens', () => {
  it('name their session', () => {
    const [sessionId, secret] = [sessionIds.create(), newSecret()]
    expect(parseRefreshToken(refreshToken(sessionId, secret))).toEqual({ sessionId, secret })
    for (const wrong of ['', 'wrr_', `wrr_${'0'.repeat(25)}_short`, `wra_${'0'.repeat(25)}_${secret}`]) {
      expect(parseRefreshToken(wrong)).toBeUndefined()
    }
  })

  it('follow from each other, and only what was there before is an ancestor', () => {
    const [key, first] = [newSecret(), newSecret()]
    const second = nextSecret(first, key)
    const third = nextSecret(second, key)
    expect(nextSecret(first, key)).toBe(second)
    expect(parseRefreshToken(refreshToken(sessionIds.create(), third))?.secret).toBe(third)
    expect([first, second].map((secret) => isAncestor(secret, digestOf(third), key, 2))).toEqual([true, true])
    expect(isAncestor(first, digestOf(third), key, 1)).toBe(false)
    expect(isAncestor(third, digestOf(third), key, 2)).toBe(false)
    expect(isAncestor(newSecret(), digestOf(third), key, 2)).toBe(false)
    expect(isAncestor(first, digestOf(third), newSecret(), 2)).toBe(false)
  })
})
