import type { TeamQuotaLimits } from '@wrenn/protocol'
import type { TeamQuota } from '../../store/usage.js'

/** Where each limit of the API is kept. */
const columns = {
  running_capsules: 'max_running',
  vcpus: 'max_vcpus',
  memory_mb: 'max_memory_mib',
  pool_bytes: 'max_pool_bytes',
  creating_capsules: 'max_creating',
  api_calls_per_min: 'max_calls_per_min',
} as const satisfies Record<keyof TeamQuotaLimits, keyof TeamQuota>
const fields = Object.entries(columns) as readonly (readonly [keyof TeamQuotaLimits, keyof TeamQuota])[]

type Wanted = { readonly [Field in keyof TeamQuotaLimits]?: number | null | undefined }

/** The columns of those that are given. */
export function quotaChange(wanted: Wanted): Partial<TeamQuota> {
  const given = fields.filter(([field]) => wanted[field] !== undefined)
  return Object.fromEntries(given.map(([field, column]) => [column, wanted[field]]))
}

/** All columns; what is not given is null. */
export function wholeQuota(wanted: Wanted): TeamQuota {
  return Object.fromEntries(fields.map(([field, column]) => [column, wanted[field] ?? null])) as unknown as TeamQuota
}

/** As the API says them. */
export function toLimits(row: TeamQuota): TeamQuotaLimits {
  return Object.fromEntries(fields.map(([field, column]) => [field, row[column]])) as unknown as TeamQuotaLimits
}
