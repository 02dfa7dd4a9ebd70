import { dirs } from '../context.js'
import type { StateManifest, StateStore } from '../state/index.js'
import type { CapsuleRecord } from '../types.js'

/** A saved state that the present one of a capsule grew out of. */
export interface Ancestor {
  /** Below the pool. */
  readonly dir: string
  /** A checkpoint stays as it is: a capsule goes on from a copy of it. Else a generation of the capsule's own. */
  readonly isCheckpoint: boolean
  /** The checkpoint that the capsule stands on once it goes on from here. */
  readonly checkpointId: string | undefined
  readonly manifest: StateManifest
}

/**
 * What a capsule could go on from when its present state is lost, newest first: the pause it was resumed from, the checkpoint it
 * stands on, and that one's parents. What cannot be read is told to `onDamage` and left out; a damaged checkpoint ends the chain,
 * because it alone names its parent.
 */
export async function ancestorsOf(
  { capsuleId, fallback, checkpointId }: CapsuleRecord,
  states: StateStore,
  onDamage: (error: unknown, dir: string) => void,
): Promise<Ancestor[]> {
  const read = async (dir: string) =>
    await states.read(dir).catch((error: unknown) => {
      onDamage(error, dir)
      return undefined
    })
  const found: Ancestor[] = []
  if (fallback !== undefined) {
    const dir = dirs.generation(capsuleId, fallback)
    const manifest = await read(dir)
    if (manifest !== undefined)
      found.push({ dir, isCheckpoint: false, checkpointId: manifest.parentId || undefined, manifest })
  }
  const seen = new Set<string>()
  for (let id = checkpointId; id !== undefined && !seen.has(id); ) {
    seen.add(id)
    const dir = dirs.checkpoint(capsuleId, id)
    const manifest = await read(dir)
    if (manifest !== undefined) found.push({ dir, isCheckpoint: true, checkpointId: id, manifest })
    id = manifest?.parentId || undefined
  }
  return found.sort((a, b) => b.manifest.savedAtMs - a.manifest.savedAtMs)
}
