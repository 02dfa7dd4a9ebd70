import { grants, type Permission } from './permissions.js'

/** What a person is in a team, from the one who may do everything down. A team always has an owner. */
export const roles = ['owner', 'admin', 'member', 'viewer'] as const
export type Role = (typeof roles)[number]

/** A newer server may have some that this table lacks. */
export function isRole(text: string): text is Role {
  return roles.some((role) => role === text)
}

const using = [...grants.read, ...grants.capsules, ...grants.templates] as const
const managing = [...using, ...grants.admin] as const

/** Who may do what in a team; the only place that says it, as `grants` is for keys. */
export const roleGrants = {
  owner: [...managing, 'team.own'],
  admin: managing,
  member: [...using, 'keys.read', 'keys.write', 'team.read'],
  viewer: [...grants.read, 'team.read'],
} as const satisfies Record<Role, readonly Permission[]>

/** All that a role allows. */
export function permissionsOfRole(role: Role): ReadonlySet<Permission> {
  return new Set(roleGrants[role])
}

/** The roles that allow it. */
export function rolesFor(permission: Permission): readonly Role[] {
  return roles.filter((role) => permissionsOfRole(role).has(permission))
}
