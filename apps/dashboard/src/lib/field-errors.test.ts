import { WrennError } from '@wrenn/sdk'
import { describe, expect, it } from 'vitest'
import { fieldErrorsOf } from './field-errors.js'

const refused = (code: string, details: Readonly<Record<string, unknown>>) => new WrennError('no', { code, details })
const fields = ['username', 'password'] as const

describe('what is refused of a request', () => {
  it('is told beside its field', () => {
    const issues = [
      { field: 'username', message: 'must not contain a colon' },
      { field: 'password', message: 'Too small: expected string to have >=1 characters' },
      { field: 'elsewhere', message: 'is not valid' },
      { field: 3 },
      null,
    ]
    expect(fieldErrorsOf(refused('invalid_request', { issues }), fields)).toEqual({
      username: 'It must not contain a colon.',
      password: 'Too small: expected string to have >=1 characters.',
    })
  })

  it('says nothing of fields where it is of something else', () => {
    const issues = [{ field: 'username', message: 'b' }]
    expect(fieldErrorsOf(refused('limit_exceeded', { issues }), fields)).toEqual({})
    expect(fieldErrorsOf(refused('invalid_request', {}), fields)).toEqual({})
    expect(fieldErrorsOf(new Error('x'), fields)).toEqual({})
  })
})
