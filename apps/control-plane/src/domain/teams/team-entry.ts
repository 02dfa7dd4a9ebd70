import type { NewAuditEntry } from '../../store/audit.js'
import type { Actor } from '../../store/schema.js'

/** The entry of what happened to a team or somebody in it. */
export function teamEntry(
  action: string,
  teamId: string,
  actor: Actor,
  details: Readonly<Record<string, string | undefined>>,
  resource: NewAuditEntry['resource'] = { type: 'team', id: teamId },
): NewAuditEntry {
  return { teamId, actor, action, resource, scope: 'admin', details }
}
