import { auditIds } from '@wrenn/base'
import { type SqlBool, sql } from 'kysely'
import { type Db, inTransaction } from './database.js'
import type { Actor, AuditRow, AuditTable, OperationRow } from './schema.js'

/** What happened to what, by whom; `undefined` is the platform itself. */
export interface NewAuditEntry {
  readonly teamId: string
  readonly actor: Actor | undefined
  readonly action: string
  readonly resource: { readonly type: AuditTable['resource_type']; readonly id: string }
  /** `admin`: about the team itself, its keys and people. @default 'team' */
  readonly scope?: AuditTable['scope']
  /** @default 'success' */
  readonly outcome?: AuditTable['outcome']
  /** Plain values; no secrets. */
  readonly details?: Readonly<Record<string, string | undefined>>
}

/**
 * Adds an entry. To be called in the transaction of the change that it tells of; takes no lock. Nothing can be taken out of it later, so it
 * names people that have an account by id alone.
 */
export async function writeAudit(tx: Db, entry: NewAuditEntry): Promise<void> {
  const { actor } = entry
  await tx
    .insertInto('audit_log')
    .values({
      id: auditIds.create(),
      team_id: entry.teamId,
      actor_type: actor === undefined ? 'system' : (actor.kind ?? 'key'),
      actor_id: actor?.id ?? null,
      actor_name: actor === undefined || (actor.kind === 'user' && actor.id !== '') ? null : actor.name,
      action: entry.action,
      resource_type: entry.resource.type,
      resource_id: entry.resource.id,
      scope: entry.scope ?? 'team',
      outcome: entry.outcome ?? 'success',
      request_id: actor?.requestId ?? null,
      ip: actor?.ip ?? null,
      details: JSON.stringify(entry.details ?? {}),
    })
    .execute()
}

/** Writes a change and its entry, both or neither; no entry when there was no change. */
export async function audited<T>(
  db: Db,
  change: (tx: Db) => Promise<T | undefined>,
  entryOf: (changed: T) => NewAuditEntry,
): Promise<T | undefined> {
  return await inTransaction(db, async (tx) => {
    const changed = await change(tx)
    if (changed !== undefined) await writeAudit(tx, entryOf(changed))
    return changed
  })
}

const actions: Readonly<Record<OperationRow['kind'], string>> = {
  create: 'capsule.create',
  destroy: 'capsule.destroy',
  pause: 'capsule.pause',
  resume: 'capsule.resume',
  hibernate: 'capsule.hibernate',
  move: 'capsule.move',
  fork: 'capsule.fork',
  rollback: 'capsule.rollback',
  atomic_exec: 'capsule.atomic_exec',
  checkpoint: 'checkpoint.create',
  delete_checkpoint: 'checkpoint.delete',
  snapshot: 'snapshot.create',
}

/** What of an operation's parameters an entry says. */
const told = {
  reason: 'reason',
  checkpointId: 'checkpoint_id',
  snapshotId: 'snapshot_id',
  from: 'from',
  hostId: 'host_id',
  because: 'host_because',
} as const

/** The entry of an operation that was asked for, or of its end. */
export function entryOfOperation(operation: OperationRow): NewAuditEntry {
  const params = operation.params ?? {}
  const details: Record<string, string | undefined> = { operation_id: operation.id, error: operation.error?.code }
  for (const [name, as] of Object.entries(told)) {
    const value = params[name]
    if (typeof value === 'string') details[as] = value
  }
  return {
    teamId: operation.team_id,
    actor: operation.actor ?? undefined,
    action: actions[operation.kind],
    resource: { type: 'capsule', id: operation.capsule_id },
    outcome: { running: 'accepted', succeeded: 'success', failed: 'failure' }[operation.state] as AuditTable['outcome'],
    details,
  }
}

/** Which entries, and how many. */
export interface AuditFilter {
  readonly actorId?: string | undefined
  readonly actions?: readonly string[] | undefined
  readonly resourceType?: AuditTable['resource_type'] | undefined
  readonly resourceId?: string | undefined
  readonly outcome?: AuditTable['outcome'] | undefined
  readonly since?: Date | undefined
  readonly until?: Date | undefined
  /** Only entries older than this position. */
  readonly before?: AuditPosition | undefined
  readonly limit: number
}

/** Where a page ends. */
export interface AuditPosition {
  readonly at: Date
  readonly id: string
}

/** An entry, and the addresses that the accounts in it have now. */
export type NamedAuditRow = AuditRow & { readonly actorEmail: string | null; readonly resourceEmail: string | null }

function named(db: Db, teamId: string) {
  return db
    .selectFrom('audit_log')
    .leftJoin('users as actor', 'actor.id', 'audit_log.actor_id')
    .leftJoin('users as about', 'about.id', 'audit_log.resource_id')
    .selectAll('audit_log')
    .select(['actor.email as actorEmail', 'about.email as resourceEmail'])
    .where('audit_log.team_id', '=', teamId)
}

/** Newest first, those without a place in the chain too. */
export async function listAudit(db: Db, teamId: string, filter: AuditFilter): Promise<NamedAuditRow[]> {
  let query = named(db, teamId)
  const { actorId, actions: wanted, resourceType, resourceId, outcome, since, until, before } = filter
  if (actorId !== undefined) query = query.where('actor_id', '=', actorId)
  if (wanted !== undefined) query = query.where('action', 'in', wanted)
  if (resourceType !== undefined) query = query.where('resource_type', '=', resourceType)
  if (resourceId !== undefined) query = query.where('resource_id', '=', resourceId)
  if (outcome !== undefined) query = query.where('outcome', '=', outcome)
  if (since !== undefined) query = query.where('at', '>=', since)
  if (until !== undefined) query = query.where('at', '<', until)
  if (before !== undefined) query = query.where(sql<SqlBool>`(at, audit_log.id) < (${before.at}, ${before.id})`)
  return await query.orderBy('at', 'desc').orderBy('audit_log.id', 'desc').limit(filter.limit).execute()
}

/** Which entries of a capsule, and which way. */
export interface AboutCapsule {
  readonly actions: readonly string[]
  /** Both ends are in it. */
  readonly since: Date | undefined
  readonly until: Date | undefined
  readonly order: 'asc' | 'desc'
  /** Only those that are older by the database's clock. */
  readonly settledMs: number
  /** Beyond this one, in that order. */
  readonly after: AuditPosition | undefined
  readonly limit: number
}

/** Entries of the team about one capsule. */
export async function listAboutCapsule(
  db: Db,
  teamId: string,
  capsuleId: string,
  { actions: wanted, since, until, order, settledMs, after, limit }: AboutCapsule,
): Promise<AuditRow[]> {
  let query = db
    .selectFrom('audit_log')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('resource_id', '=', capsuleId)
    .where('resource_type', '=', 'capsule')
    .where('action', 'in', wanted)
  if (since !== undefined) query = query.where('at', '>=', since)
  if (until !== undefined) query = query.where('at', '<=', until)
  if (settledMs > 0) {
    query = query.where(sql<SqlBool>`at < clock_timestamp() - ${settledMs} * interval '1 millisecond'`)
  }
  if (after !== undefined) {
    const beyond = sql.raw(order === 'asc' ? '>' : '<')
    query = query.where(sql<SqlBool>`(at, id) ${beyond} (${after.at}, ${after.id})`)
  }
  return await query.orderBy('at', order).orderBy('id', order).limit(limit).execute()
}

/** Entries that have their place in the chain, in its order. */
export async function listChained(db: Db, teamId: string, afterSeq: number, limit: number): Promise<NamedAuditRow[]> {
  return await named(db, teamId).where('seq', '>', afterSeq).orderBy('seq').limit(limit).execute()
}
