import { describe, expect, it } from 'vitest'
import { Passwords } from './passwords.js'

describe('passwords', () => {
  it('are known again, however they are composed, and others are not', async () => {
    const passwords = new Passwords()
    const hash = await passwords.hash('Ångström und Söhne')
    expect(hash).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/)
    expect(await passwords.verify(hash, 'Ångström und Söhne'.normalize('NFD'))).toBe(true)
    expect(await passwords.verify(hash, 'Angstrom und Sohne')).toBe(false)
    expect(await passwords.hash('Ångström und Söhne')).not.toBe(hash)
  })

  it('of nobody are never right', async () => {
    const passwords = new Passwords()
    expect(await passwords.verify(undefined, '')).toBe(false)
    expect(await passwords.verify(null, 'anything')).toBe(false)
  })

  it('wait for their turn, and are refused when too many wait', async () => {
    const passwords = new Passwords({ maxAtOnce: 1, maxWaiting: 2 })
    const all = await Promise.allSettled(Array.from({ length: 5 }, (_, n) => passwords.hash(`password ${n}`)))
    expect(all.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'fulfilled', 'rejected', 'rejected'])
    expect(all[4]).toMatchObject({ reason: { code: 'limit_exceeded', details: { retryAfterSec: 5 } } })
    // Nobody's turn got lost.
    expect(await passwords.hash('one more')).toMatch(/^\$argon2id/)
  })
})
