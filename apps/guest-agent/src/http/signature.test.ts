import { describe, expect, it } from 'vitest'
import { signatureOf, verifySignature } from './signature.js'

const token = '0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0'
const request = { path: 'hello.txt', operation: 'read', user: 'user', expiration: undefined } as const

describe('a file signature', () => {
  it('is the one existing clients compute', () => {
    expect(signatureOf(request, token)).toBe('v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E')
  })

  it('is refused when it is for another operation, missing or expired', () => {
    const signature = signatureOf(request, token)
    expect(() => verifySignature(signature, { ...request, operation: 'write' }, token)).toThrow('invalid signature')
    expect(() => verifySignature(undefined, request, token)).toThrow('missing signature')
    const old = { ...request, expiration: '1000' }
    expect(() => verifySignature(signatureOf(old, token), old, token)).toThrow('signature is already expired')
  })
})
