import type { AuditEntry } from '@wrenn/protocol'
import type { NamedAuditRow } from '../../store/audit.js'
import type { AuditRow } from '../../store/schema.js'

/** An entry with the addresses of the accounts in it, which are no part of the chain: one that is deleted has none. */
export function toNamedEntry(row: NamedAuditRow): AuditEntry {
  const { actorEmail, resourceEmail } = row
  return {
    ...toAuditEntry(row),
    ...(actorEmail ? { actor_email: actorEmail } : {}),
    ...(resourceEmail ? { resource_email: resourceEmail } : {}),
  }
}

/** An entry as it is hashed: another form would break every chain there is. */
export function toAuditEntry(row: AuditRow): AuditEntry {
  return {
    id: row.id,
    team_id: row.team_id,
    created_at: row.at.toISOString(),
    actor_type: row.actor_type,
    ...(row.actor_id === null ? {} : { actor_id: row.actor_id }),
    ...(row.actor_name === null ? {} : { actor_name: row.actor_name }),
    action: row.action,
    resource_type: row.resource_type,
    resource_id: row.resource_id,
    scope: row.scope,
    outcome: row.outcome,
    ...(row.request_id === null ? {} : { request_id: row.request_id }),
    ...(row.ip === null ? {} : { ip: row.ip }),
    details: row.details,
    ...(row.seq === null ? {} : { seq: row.seq }),
    ...(row.prev_hash === null ? {} : { prev_hash: row.prev_hash }),
    ...(row.hash === null ? {} : { hash: row.hash }),
  }
}
