import { type Capsule, wireStatus } from '@wrenn/protocol'
import type { CapsuleRow } from '../store/schema.js'

/** A capsule as the API shows it. Environment values never leave. */
export function toCapsule(row: CapsuleRow, options: { readonly timings?: boolean } = {}): Capsule {
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
    }),
    ...(options.timings === true && row.timings !== null ? { timings: [...row.timings] } : {}),
  }
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
