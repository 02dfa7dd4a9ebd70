import { describe, expect, it } from 'vitest'
import { takeCode } from './code.js'

describe('takeCode', () => {
  it('finds the code in the query and in the fragment, by both of its names', () => {
    for (const end of ['?code=abc', '?token=abc', '#token=abc', '#code=abc']) {
      expect(takeCode(new URL(`https://wrenn.example/setup${end}`))).toEqual({ code: 'abc', address: '/setup' })
    }
  })

  it('leaves the rest of the address', () => {
    const { address } = takeCode(new URL('https://wrenn.example/activate?a=1&token=x#b=2&token=y'))
    expect(address).toBe('/activate?a=1#b=2')
  })

  it('tells when there is none', () => {
    expect(takeCode(new URL('https://wrenn.example/setup')).code).toBeUndefined()
    expect(takeCode(new URL('https://wrenn.example/setup?code=')).code).toBeUndefined()
  })
})
