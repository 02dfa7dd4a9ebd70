import { oauthErrors } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { loginUrlFor, oauthFailure } from './oauth.js'

describe('oauthFailure', () => {
  it('has words of its own for everything that the platform says', () => {
    const said = oauthErrors.map((code) => oauthFailure(code))
    expect(said.map((failure) => failure?.code)).toEqual(oauthErrors)
    expect(new Set(said.map((failure) => failure?.sentence)).size).toBe(oauthErrors.length)
  })

  it('repeats nothing that somebody has written into an address', () => {
    for (const code of ['call 0900-1234', '__proto__', 'constructor', '']) {
      expect(JSON.stringify(oauthFailure(code))).toBe(JSON.stringify(oauthFailure('internal_error')))
    }
    expect(oauthFailure(null)).toBeUndefined()
  })
})

describe('loginUrlFor', () => {
  it('keeps the page that was asked for', () => {
    const url = 'https://wrenn.example/auth/oauth/acme'
    expect(loginUrlFor(url, 'signup', null)).toBe(`${url}?intent=signup`)
    expect(loginUrlFor(url, 'login', '/dashboard/keys?a=1&b')).toBe(
      `${url}?intent=login&next=%2Fdashboard%2Fkeys%3Fa%3D1%26b`,
    )
  })
})
