import type { Checkpoint } from '@wrenn/protocol'
import type { CheckpointRow } from '../../store/schema.js'

/** A checkpoint as the API shows it; `standsOn` is the one its capsule stands on. */
export function toCheckpoint(row: CheckpointRow, standsOn: string | null): Checkpoint {
  return {
    id: row.id,
    capsule_id: row.capsule_id,
    name: row.name,
    current: row.id === standsOn,
    created_at: row.created_at.toISOString(),
    ...(row.size_bytes === 0 ? {} : { size_bytes: row.size_bytes }),
    durable: row.durable_at !== null,
    ...(row.parent_id === null ? {} : { parent_id: row.parent_id }),
    ...(row.durable_at === null ? {} : { durable_at: row.durable_at.toISOString() }),
  }
}
