import { describe, expect, it } from 'vitest'
import { permissions, permissionsOf, scopes, scopesFor } from './permissions.js'

describe('the table of grants', () => {
  it('lets every permission be had, and gives all of them to all scopes together', () => {
    for (const permission of permissions) expect(scopesFor(permission), permission).not.toEqual([])
    expect([...permissionsOf(scopes)].sort()).toEqual([...permissions].sort())
    expect(permissionsOf([])).toEqual(new Set())
  })

  it('lets reading be no more than that', () => {
    expect([...permissionsOf(['read'])].every((permission) => permission.endsWith('.read'))).toBe(true)
  })

  it('says which scopes allow something', () => {
    expect(scopesFor('capsules.use')).toEqual(['capsules'])
    expect(scopesFor('capsules.read')).toEqual(['read', 'capsules', 'templates'])
  })
})
