import { describe, expect, it } from 'vitest'
import { permissionsOf } from './permissions.js'
import { isRole, permissionsOfRole, roles, rolesFor } from './roles.js'

describe('roles', () => {
  it('allow less and less, from the owner down', () => {
    const sets = roles.map(permissionsOfRole)
    for (const [index, lower] of sets.entries()) {
      const upper = sets[index - 1]
      if (upper !== undefined)
        for (const permission of lower) expect([permission, upper.has(permission)]).toEqual([permission, true])
    }
    expect(permissionsOfRole('owner')).toEqual(
      new Set([...permissionsOf(['read', 'capsules', 'templates', 'admin']), 'team.own']),
    )
    expect(rolesFor('team.own')).toEqual(['owner'])
  })

  it('let a viewer do what a key that only reads may do, and see who is there', () => {
    expect(permissionsOfRole('viewer')).toEqual(new Set([...permissionsOf(['read']), 'team.read']))
  })

  it('let a member use everything and manage nobody', () => {
    const member = permissionsOfRole('member')
    for (const permission of permissionsOf(['read', 'capsules', 'templates'])) expect(member.has(permission)).toBe(true)
    expect(member.has('audit.read')).toBe(false)
  })

  it('say who would do', () => {
    expect(rolesFor('capsules.read')).toEqual(roles)
    expect(rolesFor('capsules.write')).toEqual(['owner', 'admin', 'member'])
    expect(rolesFor('audit.read')).toEqual(['owner', 'admin'])
  })

  it('know their names', () => {
    expect(isRole('viewer')).toBe(true)
    for (const text of ['', 'Owner', 'toString', '__proto__']) expect(isRole(text)).toBe(false)
  })
})
