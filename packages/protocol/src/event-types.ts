import type { Permission } from './permissions.js'

/**
 * What is told of in a team, and who is told: no more than a look at the resource would show. `removed`: there is no record any more.
 */
export const eventPermissions = {
  'capsule.created': 'capsules.read',
  'capsule.state': 'capsules.read',
  'capsule.updated': 'capsules.read',
  'capsule.removed': 'capsules.read',
  'checkpoint.created': 'capsules.read',
  'checkpoint.updated': 'capsules.read',
  'checkpoint.removed': 'capsules.read',
  'template.created': 'templates.read',
  'template.updated': 'templates.read',
  'template.removed': 'templates.read',
  'build.created': 'templates.read',
  'build.state': 'templates.read',
  'build.updated': 'templates.read',
  'build.removed': 'templates.read',
  'api_key.created': 'keys.read',
  'api_key.revoked': 'keys.read',
  'api_key.removed': 'keys.read',
  'member.joined': 'team.read',
  'member.role': 'team.read',
  'member.left': 'team.read',
  'quota.near': 'quota.read',
  'quota.reached': 'quota.read',
  'host.down': 'platform.read',
  'host.up': 'platform.read',
  'host.pressure': 'platform.read',
  'host.eased': 'platform.read',
} as const satisfies Readonly<Record<string, Permission>>

/** What it takes to be told of events of this type; `undefined`: nobody is, because this version does not know them. */
export function permissionForEvent(type: string): Permission | undefined {
  return Object.entries(eventPermissions).find(([known]) => known === type)?.[1]
}

/** Whether events of this type, or this filter of a channel, are of the platform and not of a team: only who asks for them by name gets them. */
export function isOfPlatform(type: string): boolean {
  return type.startsWith('host.')
}
