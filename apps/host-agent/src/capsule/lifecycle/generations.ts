import { type Context, dirs } from '../context.js'
import type { CapsuleRecord } from '../types.js'

/** Removes the generations of a capsule's files that its record does not name. What cannot be removed now is garbage for the collector. */
export async function removeUnnamedGenerations(
  { capsuleId, files, fallback }: CapsuleRecord,
  { states, flusher, logger }: Context,
): Promise<void> {
  for (const name of await states.list(dirs.capsule(capsuleId))) {
    if (!/^\d+$/.test(name) || Number(name) === files || Number(name) === fallback) continue
    const dir = dirs.generation(capsuleId, Number(name))
    flusher.cancel(dir)
    await states.remove(dir).catch((error: unknown) => logger.warn({ err: error, dir }, 'state.not_removed'))
  }
}
