import { WrennError } from '@wrenn/sdk'
import { describe, expect, it } from 'vitest'
import { hintOf } from './context.js'

const error = (code: string, details?: Record<string, unknown>) =>
  new WrennError('It did not work.', { code, ...(details ? { details } : {}), hint: 'The hint of the API.' })

describe('the hint of an error', () => {
  it('names the commands that wake a capsule for a call on one that is paused', () => {
    const hint = hintOf(error('invalid_state', { state: 'paused' }))
    expect(hint).toContain('wrenn capsule resume')
    expect(hint).toContain('--auto-resume')
  })

  it("is the API's where no command fits better", () => {
    expect(hintOf(error('invalid_state', { state: 'paused', legal: ['resume'] }))).toBe('The hint of the API.')
    expect(hintOf(error('invalid_state', { state: 'stopped' }))).toBe('The hint of the API.')
    expect(hintOf(error('template_not_found'))).toContain('wrenn snapshot ls')
  })
})
