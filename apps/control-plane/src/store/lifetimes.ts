import type { CapsuleState } from '@wrenn/protocol'
import type { CapsuleRow } from './schema.js'

/** After a sleep a capsule has at least this long, however short it was asked to live (as clients made for E2B know it). */
const MIN_RENEWED_SEC = 300

const begins: ReadonlySet<CapsuleState> = new Set(['pending', 'starting'])
const wakes: ReadonlySet<CapsuleState> = new Set(['paused', 'resuming'])

/**
 * What a move to `state` makes of a capsule's life: it begins anew when the capsule comes to run. Out of other states, such as a pause that
 * failed or a host that was silent, it goes on.
 */
export function renewedLife(
  row: Pick<CapsuleRow, 'state' | 'lifetime_sec'>,
  state: CapsuleState,
  nowMs: number = Date.now(),
): { readonly ends_at?: Date } {
  if (state !== 'running' || row.lifetime_sec === null) return {}
  if (begins.has(row.state)) return { ends_at: new Date(nowMs + row.lifetime_sec * 1000) }
  if (!wakes.has(row.state)) return {}
  return { ends_at: new Date(nowMs + Math.max(MIN_RENEWED_SEC, row.lifetime_sec) * 1000) }
}
