import type { Stats } from 'node:fs'
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { RunAs } from './bound-command.js'

const SEARCH = 1
const READ = 4

/**
 * The first part of a path, from its end on, that somebody without other groups may not enter, or not read where that is the
 * file itself; `undefined` when all of it is open to them. Looks at modes only.
 */
export async function obstacleOn(path: string, who: RunAs): Promise<string | undefined> {
  for (let at = path; ; at = dirname(at)) {
    const info = await stat(at)
    if (!may(who, info, info.isDirectory() ? SEARCH : READ)) return at
    if (at === dirname(at)) return undefined
  }
}

function may(who: RunAs, { mode, uid, gid }: Stats, right: number): boolean {
  if (uid === who.uid) return (mode & (right << 6)) !== 0
  if (gid === who.gid) return (mode & (right << 3)) !== 0
  return (mode & right) !== 0
}
