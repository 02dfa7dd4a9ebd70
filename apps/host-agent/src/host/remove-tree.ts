import { rm } from 'node:fs/promises'

/** So often something may come into a directory while it is emptied. */
const MAX_RETRIES = 5

/** Removes a directory with all below it, if it is there: also one that somebody who was told to stop still writes a last file into. */
export async function removeTree(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true, maxRetries: MAX_RETRIES })
}
