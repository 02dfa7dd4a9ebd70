import { readdirSync } from 'node:fs'
import { isErrno } from '@wrenn/base'
import type { GuestUser, UserDirectory } from '../identity/users.js'
import { asUser } from '../system/as-user.js'
import { describe, type FoundEntry } from './entry.js'

/** After this many entries other work gets its turn. */
const BATCH = 1_000

interface Name {
  readonly text: string
  /** Present when the name is not UTF-8 and `text` therefore not what the kernel calls it. */
  readonly raw: Buffer | undefined
}

interface Place {
  readonly path: string
  readonly raw: Buffer | undefined
}

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
  const walk = walkTree({ path: root, raw: undefined }, depth, users)
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

function* walkTree(place: Place, depth: number, users: UserDirectory): Generator<FoundEntry, undefined> {
  for (const name of namesIn(place)) {
    const child = childOf(place, name)
    const entry = tryDescribe(child, users)
    if (entry === undefined) continue
    yield entry
    if (depth > 1 && entry.isDirectory) yield* walkBelow(child, depth - 1, users)
  }
  return undefined
}

function* walkBelow(place: Place, depth: number, users: UserDirectory): Generator<FoundEntry, undefined> {
  try {
    yield* walkTree(place, depth, users)
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'EACCES', 'ENOTDIR', 'ENAMETOOLONG')) throw error
  }
  return undefined
}

function tryDescribe(place: Place, users: UserDirectory): FoundEntry | undefined {
  try {
    return describe(place.raw ?? place.path, place.path, users)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES', 'ELOOP', 'ENOTDIR', 'ENAMETOOLONG')) return undefined
    throw error
  }
}

/** Names are read as bytes only where decoding them loses something: bytes cost twice the time. */
function namesIn(place: Place): readonly Name[] {
  const texts = readdirSync(place.raw ?? place.path)
  const names = texts.some((text) => text.includes('\ufffd'))
    ? readdirSync(place.raw ?? place.path, { encoding: 'buffer' }).map(nameOf)
    : texts.map((text) => ({ text, raw: undefined }))
  return names.sort((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : 0))
}

function nameOf(raw: Buffer): Name {
  const text = raw.toString('utf8')
  return { text, raw: Buffer.from(text).equals(raw) ? undefined : raw }
}

function childOf(place: Place, name: Name): Place {
  const prefix = place.path.endsWith('/') ? place.path : `${place.path}/`
  const path = `${prefix}${name.text}`
  if (place.raw === undefined && name.raw === undefined) return { path, raw: undefined }
  const parent = place.raw ?? Buffer.from(place.path)
  return { path, raw: Buffer.concat([parent, Buffer.from('/'), name.raw ?? Buffer.from(name.text)]) }
}
