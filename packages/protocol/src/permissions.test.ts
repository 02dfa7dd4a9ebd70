import { describe, expect, it } from 'vitest'
import { permissions, permissionsOf, scopes, scopesFor } from './permissions.js'

describe('the table of grants', () => {
  it('lets every permission but that of people be had, and gives all of them to all scopes together', () => {
    const ofKeys = permissions.filter((permission) => !['account.use', 'team.own'].includes(permission))
    for (const permission of ofKeys) expect(scopesFor(permission), permission).not.toEqual([])
    expect([...permissionsOf(scopes)].sort()).toEqual([...ofKeys].sort())
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
