import { lstatSync, readlinkSync, realpathSync, type Stats, statSync } from 'node:fs'
import { basename } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { isErrno, pathText } from '@wrenn/base'
import { type EntryInfoSchema, FileType } from '@wrenn/protocol/guest'
import type { UserDirectory } from '../identity/users.js'
import { kernelPath } from './kernel-path.js'

/** What is at a path, in the shape of the wire (`EntryInfo` of filesystem.proto). */
export type Entry = MessageInitShape<typeof EntryInfoSchema>

/** An entry with what tells whether metadata may hang on it. */
export interface FoundEntry {
  readonly entry: Entry
  readonly inode: number
  /** The entry itself is a directory, not a link to one. */
  readonly isDirectory: boolean
}

/**
 * Describes what is at `path`. A symbolic link reports its target's type, mode and size with the resolved target; a dangling one
 * is of type symlink. Paths and targets are texts as `pathText` makes them.
 * @throws the file system's error
 */
export function describe(path: string, users: UserDirectory): FoundEntry {
  const place = kernelPath(path)
  const own = lstatSync(place)
  const target = own.isSymbolicLink() ? followed(place) : undefined
  const shown = target?.stats ?? own
  const entry: Entry = {
    name: basename(path),
    type: typeOf(shown),
    path,
    size: BigInt(shown.size),
    mode: shown.mode & 0o7777,
    permissions: permissionText(shown),
    owner: users.userName(shown.uid),
    group: users.groupName(shown.gid),
    modifiedTime: timestamp(shown.mtimeMs),
    isSymlink: own.isSymbolicLink(),
    ...(target === undefined ? {} : { symlinkTarget: target.path }),
  }
  return { entry, inode: shown.ino, isDirectory: own.isDirectory() }
}

function followed(place: string | Buffer): { readonly path: string; readonly stats: Stats | undefined } {
  try {
    return { path: realPath(place), stats: statSync(place) }
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'EACCES', 'ELOOP', 'ENOTDIR', 'ENAMETOOLONG')) throw error
    return { path: linkTarget(place), stats: undefined }
  }
}

/** The path without links, as text. Node's own `realpathSync` loses bytes that are not UTF-8. */
export function realPath(place: string | Buffer): string {
  return pathText(realpathSync.native(place, { encoding: 'buffer' }))
}

/** What a symbolic link says, as text. */
export function linkTarget(place: string | Buffer): string {
  return pathText(readlinkSync(place, { encoding: 'buffer' }))
}

function typeOf(stats: Stats): FileType {
  if (stats.isDirectory()) return FileType.DIRECTORY
  if (stats.isSymbolicLink()) return FileType.SYMLINK
  return stats.isFile() ? FileType.FILE : FileType.UNSPECIFIED
}

/** What a Timestamp can say: years 1 to 9999 (google/protobuf/timestamp.proto). */
const FIRST_SECOND = -62_135_596_800
const LAST_SECOND = 253_402_300_799

function timestamp(ms: number): { seconds: bigint; nanos: number } {
  const seconds = Math.floor(ms / 1000)
  if (seconds < FIRST_SECOND) return { seconds: BigInt(FIRST_SECOND), nanos: 0 }
  if (seconds > LAST_SECOND) return { seconds: BigInt(LAST_SECOND), nanos: 0 }
  return { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) }
}

const typeLetters: readonly (readonly [(stats: Stats) => boolean, string])[] = [
  [(stats) => stats.isDirectory(), 'd'],
  [(stats) => stats.isSymbolicLink(), 'l'],
  [(stats) => stats.isCharacterDevice(), 'c'],
  [(stats) => stats.isBlockDevice(), 'b'],
  [(stats) => stats.isFIFO(), 'p'],
  [(stats) => stats.isSocket(), 's'],
]

const knownTexts = new Map<number, string>()

/** Type and permissions as `ls -l` writes them. There are few different modes, and many files. */
export function permissionText(stats: Stats): string {
  const known = knownTexts.get(stats.mode)
  if (known !== undefined) return known
  const text = makePermissionText(stats)
  knownTexts.set(stats.mode, text)
  return text
}

function makePermissionText(stats: Stats): string {
  const type = typeLetters.find(([is]) => is(stats))?.[1] ?? '-'
  const { mode } = stats
  const bits = ['r', 'w', 'x', 'r', 'w', 'x', 'r', 'w', 'x'].map((letter, at) =>
    (mode >> (8 - at)) & 1 ? letter : '-',
  )
  setSpecial(bits, 2, mode & 0o4000, 's')
  setSpecial(bits, 5, mode & 0o2000, 's')
  setSpecial(bits, 8, mode & 0o1000, 't')
  return type + bits.join('')
}

function setSpecial(bits: string[], at: number, isSet: number, letter: string): void {
  if (isSet !== 0) bits[at] = bits[at] === 'x' ? letter : letter.toUpperCase()
}
