import type { Dirent } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'

/** Everything below `folder`, parents first, names in order; symlinks are not followed. */
export async function* walk(folder: string): AsyncGenerator<{ readonly path: string; readonly entry: Dirent }> {
  const entries = await readdir(folder, { withFileTypes: true })
  entries.sort((a, b) => (a.name < b.name ? -1 : 1))
  for (const entry of entries) {
    const path = join(folder, entry.name)
    yield { path, entry }
    if (entry.isDirectory()) yield* walk(path)
  }
}
