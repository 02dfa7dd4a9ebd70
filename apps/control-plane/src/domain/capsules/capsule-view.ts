import { type Capsule, isUsable, wireStatus } from '@wrenn/protocol'
import type { CapsuleRow } from '../../store/schema.js'

/** A capsule as the API shows it. Environment values never leave. */
export function toCapsule(
  row: CapsuleRow,
  options: { readonly timings?: boolean; readonly lifecycleTimings?: boolean } = {},
): Capsule {
  return {
    id: row.id,
    status: wireStatus(row.state),
    state: row.state,
    template: row.template,
    vcpus: row.vcpus,
    memory_mb: row.memory_mib,
    disk_size_mb: row.disk_size_mib,
    timeout_sec: row.timeout_sec,
    created_at: row.created_at.toISOString(),
    last_updated: row.updated_at.toISOString(),
    labels: row.labels,
    metadata: versions(row),
    auto_resume: row.auto_resume,
    port_access: row.port_token === null ? 'public' : 'private',
    ...savedState(row),
    ...defined({
      name: row.name,
      guest_ip: row.guest_address,
      host_id: row.host_id,
      started_at: row.started_at?.toISOString(),
      last_active_at: row.last_active_at?.toISOString(),
      egress: row.egress,
      engine: row.engine,
      path: row.path,
      exit: row.exit,
      pauses_at: pausesAt(row)?.toISOString(),
      ends_at: isAwake(row) ? row.ends_at?.toISOString() : undefined,
      on_end: row.on_end,
      awake_because: row.awake_because === null || !isUsable(row.state) ? undefined : [...row.awake_because],
      pause_reason: row.pause_reason,
      paused_at: row.paused_at?.toISOString(),
      notice: row.notice,
      parent_id: row.parent_id,
      snapshot_id: row.snapshot_id,
      checkpoint_id: row.checkpoint_id,
      disk_bytes: row.disk_bytes || undefined,
    }),
    ...(options.timings === true && row.timings !== null ? { timings: [...row.timings] } : {}),
    ...(options.lifecycleTimings === true && row.lifecycle_timings !== null
      ? { lifecycle_timings: [...row.lifecycle_timings] }
      : {}),
  }
}

/** Time asleep does not count for a life. */
function isAwake({ state }: CapsuleRow): boolean {
  const status = wireStatus(state)
  return status !== 'paused' && status !== 'hibernated'
}

/** When a capsule will be paused if nothing happens; `undefined` when it never will. */
export function pausesAt(row: CapsuleRow): Date | undefined {
  if (row.timeout_sec === 0 || !isUsable(row.state)) return undefined
  const idleSince = row.last_active_at ?? row.started_at ?? row.created_at
  return new Date(idleSince.getTime() + row.timeout_sec * 1000)
}

function savedState(row: CapsuleRow): Pick<Capsule, 'durable' | 'durable_at'> {
  if (row.state !== 'paused' && row.state !== 'hibernated') return {}
  return { durable: row.durable_at !== null, ...(row.durable_at && { durable_at: row.durable_at.toISOString() }) }
}

function versions(row: CapsuleRow): Record<string, string> {
  const known = {
    engine: row.engine,
    engine_version: row.engine_version,
    kernel_version: row.kernel_version,
    agent_version: row.agent_version,
    envd_version: row.agent_version,
  }
  return Object.fromEntries(Object.entries(known).flatMap(([key, value]) => (value === null ? [] : [[key, value]])))
}

type Defined<T> = { [Key in keyof T]?: Exclude<T[Key], null | undefined> }

/** Without the entries that are `null` or `undefined`. */
function defined<T extends Record<string, unknown>>(entries: T): Defined<T> {
  // The filter removes exactly what `Defined` leaves out.
  return Object.fromEntries(Object.entries(entries).filter(([, value]) => value != null)) as Defined<T>
}
