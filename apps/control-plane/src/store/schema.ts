import type { CapsuleExit, CapsuleState, EgressPolicy, ErrorBody } from '@wrenn/protocol'
import type { ColumnType, Generated, JSONColumnType, RawBuilder, Selectable } from 'kysely'

type Time = ColumnType<Date, Date | undefined, Date>
type OptionalTime = ColumnType<Date | null, Date | null | undefined, Date | null>
type Json<T extends object | null> = JSONColumnType<T, string | null | undefined, string | null>
/** bigint columns come back as text; generations stay far below 2^53 and are parsed as numbers. */
type Count = ColumnType<number, number | undefined, number>

export interface TeamsTable {
  id: string
  name: string
  created_at: Time
}

export interface ApiKeysTable {
  id: string
  team_id: string
  name: string
  /** First characters, for people. */
  prefix: string
  /** SHA-256 of the whole key, hexadecimal. */
  key_hash: string
  created_at: Time
  last_used_at: OptionalTime
}

export interface HostsTable {
  id: string
  address: string
  agent_version: string
  engine: string
  first_seen_at: Time
  last_seen_at: Time
}

export type DesiredState = 'running' | 'stopped'

/** What the host said last: `absent` when it answered without the capsule, `silent` when it did not answer. */
export type ObservedState = CapsuleState | 'absent' | 'silent'

export interface Timing {
  readonly step: string
  readonly ms: number
}

export interface CapsulesTable {
  id: string
  team_id: string
  host_id: string | null
  name: string | null
  template: string
  vcpus: number
  memory_mib: number
  disk_size_mib: number
  timeout_sec: Generated<number>
  labels: Json<Record<string, string>>
  envs: Json<Record<string, string>>
  egress: Json<EgressPolicy | null>
  default_user: Generated<string>
  default_cwd: Generated<string>
  state: CapsuleState
  desired_state: DesiredState
  observed_state: ObservedState | null
  observed_at: OptionalTime
  generation: Count
  engine: string | null
  engine_version: string | null
  kernel_version: string | null
  agent_version: string | null
  path: string | null
  timings: Json<readonly Timing[] | null>
  guest_address: string | null
  exit: Json<CapsuleExit | null>
  /** Breaks ties of created_at in a page's cursor. */
  seq: Generated<number>
  created_at: Time
  started_at: OptionalTime
  stopped_at: OptionalTime
  last_active_at: OptionalTime
  updated_at: Time
}

export type OperationKind = 'create' | 'destroy'
export type OperationState = 'running' | 'succeeded' | 'failed'

export interface OperationsTable {
  id: string
  team_id: string
  capsule_id: string
  kind: OperationKind
  idempotency_key: string | null
  request_hash: string
  state: OperationState
  /** The answer's error, when it failed. */
  error: Json<ErrorBody['error'] | null>
  attempts: Count
  generation: Count
  /** Whoever runs it renews this; afterwards another may take it over. */
  lease_until: ColumnType<Date, Date | RawBuilder<Date>, Date | RawBuilder<Date>>
  created_at: Time
  updated_at: Time
}

export interface Database {
  teams: TeamsTable
  api_keys: ApiKeysTable
  hosts: HostsTable
  capsules: CapsulesTable
  operations: OperationsTable
}

export type CapsuleRow = Selectable<CapsulesTable>
export type OperationRow = Selectable<OperationsTable>
