import type { Host } from '@wrenn/protocol'
import type { NewAuditEntry } from '../../store/audit.js'
import type { KnownJoinedHost } from '../../store/joined-hosts.js'
import type { Actor } from '../../store/schema.js'
import { PLATFORM_TEAM_ID } from '../people/index.js'

/** A host as the API shows it. */
export function toHost(row: KnownJoinedHost): Host {
  const { arch, cpu_cores: cores, memory_mib: memoryMib, disk_gib: diskGib } = row
  return {
    id: row.id,
    type: 'regular',
    status: statusOf(row),
    schedulable: row.cordoned_at === null,
    tags: [...row.tags],
    ...(row.address === null ? {} : { address: row.address }),
    ...(arch === null ? {} : { arch }),
    ...(cores === null ? {} : { cpu_cores: cores }),
    ...(memoryMib === null ? {} : { memory_mb: memoryMib }),
    ...(diskGib === null ? {} : { disk_gb: diskGib }),
    ...(row.last_seen_at === null ? {} : { last_heartbeat_at: row.last_seen_at.toISOString() }),
    ...(row.certificate_expires_at === null
      ? {}
      : { certificate_expires_at: row.certificate_expires_at.toISOString() }),
    created_by: row.created_by,
    created_at: row.created_at.toISOString(),
    updated_at: row.updated_at.toISOString(),
  }
}

function statusOf({ joined_at: joinedAt, revoked_at: revokedAt, told_state: told }: KnownJoinedHost): string {
  if (revokedAt !== null) return 'revoked'
  if (joinedAt === null) return 'pending'
  return told === 'up' ? 'online' : 'unreachable'
}

/** What happened to a host, in the platform's own audit trail. */
export function hostEntry(
  action: string,
  id: string,
  actor: Actor | undefined,
  details: Readonly<Record<string, string>> = {},
): NewAuditEntry {
  return { teamId: PLATFORM_TEAM_ID, actor, action, resource: { type: 'host', id }, scope: 'admin', details }
}
