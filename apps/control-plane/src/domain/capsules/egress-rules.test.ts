import { describe, expect, it } from 'vitest'
import { hashJson } from '../operations/index.js'
import { Keyring } from '../secrets/index.js'
import { copyRules, hashWithRules, openRules, sealRules, splitWish } from './egress-rules.js'

const keyOf = (byte: number): Buffer => Buffer.alloc(32, byte)
const keyring = new Keyring([keyOf(1)])
const rules = [{ host: 'api.example', headers: { authorization: 'a secret' } }]
const wishOf = (headers: Record<string, string> | string[]) => ({
  egress: { internet: true, allow: [], deny: [], rules: [{ host: 'api.example', headers }] },
})

describe('what rules set', () => {
  it('is kept for its capsule alone', () => {
    const sealed = sealRules(keyring, 'cl-one', rules)
    expect(sealed).not.toContain('secret')
    expect(openRules(keyring, { id: 'cl-one', egress_rules: sealed })).toEqual(rules)
    expect(() => openRules(keyring, { id: 'cl-other', egress_rules: sealed })).toThrow()
    const copied = copyRules(keyring, { id: 'cl-one', egress_rules: sealed }, 'cl-other')
    expect(openRules(keyring, { id: 'cl-other', egress_rules: copied })).toEqual(rules)
    expect(openRules(new Keyring([keyOf(2), keyOf(1)]), { id: 'cl-one', egress_rules: sealed })).toEqual(rules)
  })

  it('needs no key where there is none', () => {
    const none = new Keyring([])
    expect(sealRules(none, 'cl-one', [])).toBeNull()
    expect(openRules(none, { id: 'cl-one', egress_rules: null })).toEqual([])
    expect(hashWithRules(none, {})).toBe(hashJson({}))
  })

  it('is no part of a hash by which it could be guessed', () => {
    const wish = wishOf({ authorization: 'a secret' })
    const hash = hashWithRules(keyring, wish)
    expect(hashWithRules(keyring, wish)).toBe(hash)
    const others = [
      hashJson(wish),
      hashWithRules(new Keyring([keyOf(2)]), wish),
      hashWithRules(keyring, wishOf({ authorization: 'another' })),
      hashWithRules(keyring, wishOf({ cookie: 'a secret' })),
      hashWithRules(keyring, wishOf(['authorization'])),
    ]
    expect(new Set([hash, ...others]).size).toBe(6)
  })

  it('is told apart from what may be shown', () => {
    const shown = { internet: true, allow: [], deny: [], rules: [{ host: 'api.example', headers: ['authorization'] }] }
    expect(splitWish(wishOf({ authorization: 'a secret' }).egress, () => [])).toEqual({ policy: shown, rules })
    expect(splitWish(wishOf(['authorization']).egress, () => rules)).toEqual({ policy: shown, rules })
    expect(() => splitWish(wishOf(['toString']).egress, () => rules)).toThrow('has no value that could be kept')
  })
})
