import { describe, expect, it } from 'vitest'
import { loginPath, safeNext } from './next.js'

const origin = 'https://wrenn.example'

describe('safeNext', () => {
  it('leads to pages of this site, with their query and fragment', () => {
    expect(safeNext('/dashboard/capsules/cl-1/files?path=%2Froot#x', origin)).toBe(
      '/dashboard/capsules/cl-1/files?path=%2Froot#x',
    )
    expect(safeNext('/invitation', origin)).toBe('/invitation')
    expect(safeNext('/device', origin)).toBe('/device')
  })

  it('never leads to another site', () => {
    const elsewhere = [
      '//evil.example/dashboard',
      '/\\evil.example',
      '\\\\evil.example',
      'https://evil.example/dashboard',
      'javascript:alert(1)',
      '/\t/evil.example',
      '/dashboard/\n/evil.example',
      ' //evil.example',
      'dashboard',
      '/dashboard/../../\\evil.example',
      '',
      null,
    ]
    for (const next of elsewhere) expect([next, safeNext(next, origin)]).toEqual([next, '/dashboard/capsules'])
  })

  it('never leads to what is no page, such as a call of the API that a link could make', () => {
    for (const next of ['/v1/auth/logout', '/login?next=/dashboard', '/', '/dashboardx']) {
      expect([next, safeNext(next, origin)]).toEqual([next, '/dashboard/capsules'])
    }
  })
})

describe('loginPath', () => {
  it('keeps where somebody was', () => {
    const path = loginPath({ pathname: '/dashboard/audit', search: '?outcome=failure' })
    expect(safeNext(new URL(path, origin).searchParams.get('next'), origin)).toBe('/dashboard/audit?outcome=failure')
  })
})
