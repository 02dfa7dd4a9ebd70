import { readdirSync } from 'node:fs'
import { isErrno, pathText } from '@wrenn/base'
import type { GuestUser, UserDirectory } from '../identity/users.js'
import { asUser } from '../system/as-user.js'
import { describe, type FoundEntry } from './entry.js'
import { kernelPath } from './kernel-path.js'

/** After this many entries other work gets its turn. */
const BATCH = 1_000

/**
 * Everything below `root` down to `depth` levels, each directory before its content, names in lexical order. Symbolic links are
 * not followed; what vanishes, is closed to the user or lies deeper than a path can say is left out.
 */
export async function listTree(
  root: string,
  depth: number,
  user: GuestUser,
  users: UserDirectory,
): Promise<readonly FoundEntry[]> {
  const found: FoundEntry[] = []
  const walk = walkTree(root, depth, users)
  for (let done = false; !done; ) {
    if (found.length > 0) await new Promise(setImmediate)
    done = asUser(user, () => takeBatch(walk, found))
  }
  return found
}

function takeBatch(walk: Iterator<FoundEntry>, found: FoundEntry[]): boolean {
  for (let taken = 0; taken < BATCH; taken++) {
    const { value, done } = walk.next()
    if (done) return true
    found.push(value)
  }
  return false
}

function* walkTree(directory: string, depth: number, users: UserDirectory): Generator<FoundEntry, undefined> {
  const prefix = directory.endsWith('/') ? directory : `${directory}/`
  for (const name of namesIn(directory)) {
    const child = `${prefix}${name}`
    const entry = tryDescribe(child, users)
    if (entry === undefined) continue
    yield entry
    if (depth > 1 && entry.isDirectory) yield* walkBelow(child, depth - 1, users)
  }
  return undefined
}

function* walkBelow(directory: string, depth: number, users: UserDirectory): Generator<FoundEntry, undefined> {
  try {
    yield* walkTree(directory, depth, users)
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'EACCES', 'ENOTDIR', 'ENAMETOOLONG')) throw error
  }
  return undefined
}

function tryDescribe(path: string, users: UserDirectory): FoundEntry | undefined {
  try {
    return describe(path, users)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES', 'ELOOP', 'ENOTDIR', 'ENAMETOOLONG')) return undefined
    throw error
  }
}

/** The names in a directory as `pathText` writes them, in order; read as bytes only where decoding them may lose something. */
export function namesIn(directory: string): readonly string[] {
  const place = kernelPath(directory)
  const texts = readdirSync(place)
  const isLossy = texts.some((text) => text.includes('\ufffd'))
  const names = isLossy ? readdirSync(place, { encoding: 'buffer' }).map(pathText) : texts
  return names.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
}
