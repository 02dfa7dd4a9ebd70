import { sql } from 'kysely'
import type { Db } from './database.js'
import type { Actor, AuditTable } from './schema.js'

/** Teams that want what is done inside their capsules in their audit trail. */
export async function listAuditedTeams(db: Db): Promise<string[]> {
  const rows = await db.selectFrom('teams').select('id').where('audit_data_access', '=', true).execute()
  return rows.map(({ id }) => id)
}

/** @returns whether that is a change */
export async function setDataAccessAudit(tx: Db, teamId: string, isOn: boolean): Promise<boolean> {
  const { numUpdatedRows } = await tx
    .updateTable('teams')
    .set({ audit_data_access: isOn })
    .where('id', '=', teamId)
    .where('audit_data_access', '!=', isOn)
    .executeTakeFirst()
  return numUpdatedRows > 0n
}

/** Who did it: a key, a person, or whoever has one of the capsule's own tokens. */
export type AccessActor = Actor | { readonly kind: 'token'; readonly ip: string }

/** What somebody did inside a capsule, or that such entries were lost. */
export interface AccessEntry {
  readonly teamId: string
  /** `undefined`: the platform. */
  readonly actor: AccessActor | undefined
  readonly action: string
  readonly resource: { readonly type: AuditTable['resource_type']; readonly id: string }
  readonly outcome: AuditTable['outcome']
  readonly details: Readonly<Record<string, string>>
}

/** An entry that waits to be written. */
export interface WaitingEntry extends AccessEntry {
  /** Greater than those of the entries before it. */
  readonly id: string
  /** How long ago it happened. */
  readonly ageMs: number
}

/**
 * Adds entries in their order, each at the time when it happened but none before `after`. Those that are there already, because the answer to
 * their first writing was lost, are not written twice. @returns when the last one was, by the database's clock
 */
export async function writeAccess(
  db: Db,
  entries: readonly WaitingEntry[],
  after: Date | undefined,
): Promise<Date | undefined> {
  const rows = entries.map(({ id, teamId, actor, action, resource, outcome, details, ageMs }) => {
    const by = actor?.kind === 'token' ? undefined : actor
    return {
      ...{ id, team_id: teamId, action, outcome, details, age_ms: ageMs },
      ...{ resource_type: resource.type, resource_id: resource.id },
      actor_type: actor === undefined ? 'system' : (actor.kind ?? 'key'),
      actor_id: by?.id ?? null,
      // People are named by id alone.
      actor_name: by === undefined || by.kind === 'user' ? null : by.name,
      request_id: by?.requestId || null,
      ip: actor?.ip ?? null,
    }
  })
  const { rows: written } = await sql<{ at: Date }>`
    INSERT INTO audit_log (id, team_id, at, actor_type, actor_id, actor_name, action, resource_type, resource_id, scope, outcome,
      request_id, ip, details)
    SELECT id, team_id, greatest(now() - age_ms * interval '1 millisecond', ${after ?? null}::timestamptz),
      actor_type, actor_id, actor_name, action, resource_type, resource_id, 'team', outcome, request_id, ip, details
    FROM jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) AS e (id text, team_id text, age_ms double precision, actor_type text,
      actor_id text, actor_name text, action text, resource_type text, resource_id text, outcome text, request_id text, ip text,
      details jsonb)
    ON CONFLICT (id) DO NOTHING RETURNING at`.execute(db)
  return written.reduce<Date | undefined>((last, { at }) => (last === undefined || at > last ? at : last), after)
}
