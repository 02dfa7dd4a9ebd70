/** What a route may need. Each of them names its own; a new route adds a row here only when none of these says it. */
export const permissions = [
  /** Records of capsules, their numbers, checkpoints and differences; nothing that a capsule holds. */
  'capsules.read',
  /** Create, change, move and end them. */
  'capsules.write',
  /** Reach into them: commands, processes, files, terminals. */
  'capsules.use',
  'templates.read',
  /** Make and delete snapshots. */
  'templates.write',
  'quota.read',
  'keys.read',
  /** Make and revoke keys. */
  'keys.write',
  /** Revoke keys that others have made. */
  'keys.manage',
  'audit.read',
  /** Where the team's events are sent to, and what became of each. */
  'channels.read',
  'channels.write',
  /** Who is in the team. */
  'team.read',
  /** Its name, people, roles and invitations. */
  'team.write',
  /** Delete it, or hand it over: its owner's alone, no key has it. */
  'team.own',
  /** One's own account and sessions: people's alone, no key has it. */
  'account.use',
  /** Everybody's accounts, of whatever team. */
  'users.read',
  'users.write',
  /** Everybody's teams: that they are there, what they use, and which capsules they have; nothing that a capsule holds. */
  'teams.read',
  /** What teams may use. */
  'teams.write',
  /** How the platform itself does: its hosts and services. */
  'platform.read',
  /** Machines that run capsules. */
  'hosts.read',
  /** Let machines join, and send them away. */
  'hosts.write',
] as const
export type Permission = (typeof permissions)[number]

/** All that concerns a team. */
export const teamScopes = ['read', 'capsules', 'templates', 'admin'] as const
/** All that concerns the platform, whatever the team: a key has one only when it is named. */
export const platformScopes = ['platform', 'monitor'] as const
/** What a key may be made for. A key without the scope `admin` cannot make keys. */
export const scopes = [...teamScopes, ...platformScopes] as const
export type Scope = (typeof scopes)[number]

/** A newer server may have some that this table lacks. */
export function isScope(text: string): text is Scope {
  return scopes.some((scope) => scope === text)
}

const seeing = ['capsules.read', 'templates.read', 'quota.read'] as const

/**
 * Who may do what: the only place that says it. Checks of routes, the OpenAPI document, and refusals derive from this table.
 */
export const grants = {
  read: seeing,
  capsules: [...seeing, 'capsules.write', 'capsules.use'],
  templates: [...seeing, 'templates.write'],
  admin: [
    'keys.read',
    'keys.write',
    'keys.manage',
    'audit.read',
    'channels.read',
    'channels.write',
    'team.read',
    'team.write',
  ],
  platform: ['users.read', 'users.write', 'teams.read', 'teams.write', 'platform.read', 'hosts.read', 'hosts.write'],
  monitor: ['platform.read', 'hosts.read'],
} as const satisfies Record<Scope, readonly Permission[]>

/** All that these scopes allow together. */
export function permissionsOf(held: readonly Scope[]): ReadonlySet<Permission> {
  return new Set(held.flatMap((scope): readonly Permission[] => grants[scope]))
}

/** The scopes that allow it, each by itself. */
export function scopesFor(permission: Permission): readonly Scope[] {
  return scopes.filter((scope) => permissionsOf([scope]).has(permission))
}
