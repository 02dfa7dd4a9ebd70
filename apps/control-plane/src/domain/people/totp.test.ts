import { describe, expect, it } from 'vitest'
import { newRecoveryCodes, recoveryDigest } from './recovery-codes.js'
import { newTotpSecret, stepOf, totpUri } from './totp.js'

/** `12345678901234567890`, the secret of RFC 6238, appendix B. */
const SECRET = 'GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ'

describe('a code of an authenticator app', () => {
  it('is the one of RFC 6238 at its times', () => {
    for (const [sec, code] of [
      [59, '287082'],
      [1111111109, '081804'],
      [1234567890, '005924'],
      [20000000000, '353130'],
    ] as const) {
      expect(stepOf(SECRET, code, sec * 1000)).toBe(Math.floor(sec / 30))
    }
  })

  it('is good one step before and after its own, and no other', () => {
    const [code, step] = ['081804', Math.floor(1111111109 / 30)]
    const at = (steps: number): number | undefined => stepOf(SECRET, code, (step + steps) * 30_000)
    expect([-2, -1, 0, 1, 2].map(at)).toEqual([undefined, step, step, step, undefined])
  })

  it('is of no other secret', () => {
    const [one, other] = [newTotpSecret(), newTotpSecret()]
    expect(one).toMatch(/^[A-Z2-7]{32}$/)
    expect(one).not.toBe(other)
  })

  it('comes with a URI that says whose it is', () => {
    const uri = new URL(totpUri(SECRET, 'ada+x@example.com'))
    expect(uri.protocol + uri.host).toBe('otpauth:totp')
    expect(decodeURIComponent(uri.pathname)).toContain('ada+x@example.com')
    expect(Object.fromEntries(uri.searchParams)).toMatchObject({ issuer: 'Wrenn', secret: SECRET })
  })
})

describe('recovery codes', () => {
  it('are ten, all different, and the same however they are typed', () => {
    const codes = newRecoveryCodes()
    expect(new Set(codes).size).toBe(10)
    for (const code of codes) {
      expect(code).toMatch(/^(?:[2-9a-hjkmnp-z]{4}-){3}[2-9a-hjkmnp-z]{4}$/)
      expect(recoveryDigest(` ${code.toUpperCase().replaceAll('-', ' ')}`)).toBe(recoveryDigest(code))
    }
  })
})
