import { type Context, currentDir, dirs } from '../context.js'
import type { Holding } from './sizes.js'

/** All directories of capsules, checkpoints and snapshots, and whose they are. */
export async function holdingsOf(context: Pick<Context, 'table' | 'states'>): Promise<Holding[]> {
  const { table, states } = context
  const holdings: Holding[] = []
  for (const entry of table.entries()) {
    const { capsuleId, teamId, state, fallback, pausedAtMs } = entry.record
    const of = { capsuleId, teamId }
    holdings.push({ ...of, dir: currentDir(entry), fixedSinceMs: state === 'paused' ? pausedAtMs : undefined })
    // Was the current one until the last pause.
    if (fallback !== undefined) {
      holdings.push({ ...of, dir: dirs.generation(capsuleId, fallback), fixedSinceMs: pausedAtMs })
    }
    for (const id of await states.list(dirs.checkpoints(capsuleId))) {
      holdings.push({ ...of, dir: dirs.checkpoint(capsuleId, id), fixedSinceMs: 0 })
    }
  }
  for (const id of await states.list(dirs.snapshots())) {
    const dir = dirs.snapshot(id)
    const teamId = (await states.read(dir).catch(() => undefined))?.teamId // a damaged one is told to whoever uses it
    if (teamId !== undefined) holdings.push({ dir, teamId, capsuleId: undefined, fixedSinceMs: 0 })
  }
  return holdings
}
