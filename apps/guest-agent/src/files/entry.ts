import { type BigIntStats, lstatSync, readlinkSync, realpathSync, statSync } from 'node:fs'
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
  const own = lstatSync(place, { bigint: true })
  const target = own.isSymbolicLink() ? followed(place) : undefined
  const shown = target?.stats ?? own
  const entry: Entry = {
    name: basename(path),
    type: typeOf(shown),
    path,
    size: shown.size,
    mode: Number(shown.mode) & 0o7777,
    permissions: permissionText(shown),
    owner: users.userName(Number(shown.uid)),
    group: users.groupName(Number(shown.gid)),
    modifiedTime: timestamp(shown.mtimeNs),
    isSymlink: own.isSymbolicLink(),
    ...(target === undefined ? {} : { symlinkTarget: target.path }),
  }
  return { entry, inode: Number(shown.ino), isDirectory: own.isDirectory() }
}

function followed(place: string | Buffer): { readonly path: string; readonly stats: BigIntStats | undefined } {
  try {
    return { path: realPath(place), stats: statSync(place, { bigint: true }) }
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

function typeOf(stats: BigIntStats): FileType {
  if (stats.isDirectory()) return FileType.DIRECTORY
  if (stats.isSymbolicLink()) return FileType.SYMLINK
  return stats.isFile() ? FileType.FILE : FileType.UNSPECIFIED
}

/** What a Timestamp can say: years 1 to 9999 (google/protobuf/timestamp.proto). */
const FIRST_SECOND = -62_135_596_800n
const LAST_SECOND = 253_402_300_799n
const SECOND_NS = 1_000_000_000n

function timestamp(ns: bigint): { seconds: bigint; nanos: number } {
  const nanos = ((ns % SECOND_NS) + SECOND_NS) % SECOND_NS
  const seconds = (ns - nanos) / SECOND_NS
  if (seconds < FIRST_SECOND) return { seconds: FIRST_SECOND, nanos: 0 }
  if (seconds > LAST_SECOND) return { seconds: LAST_SECOND, nanos: 0 }
  return { seconds, nanos: Number(nanos) }
}

const typeLetters: readonly (readonly [(stats: BigIntStats) => boolean, string])[] = [
  [(stats) => stats.isDirectory(), 'd'],
  [(stats) => stats.isSymbolicLink(), 'l'],
  [(stats) => stats.isCharacterDevice(), 'c'],
  [(stats) => stats.isBlockDevice(), 'b'],
  [(stats) => stats.isFIFO(), 'p'],
  [(stats) => stats.isSocket(), 's'],
]

const knownTexts = new Map<bigint, string>()

/** Type and permissions as `ls -l` writes them. There are few different modes, and many files. */
export function permissionText(stats: BigIntStats): string {
  const known = knownTexts.get(stats.mode)
  if (known !== undefined) return known
  const text = makePermissionText(stats)
  knownTexts.set(stats.mode, text)
  return text
}

function makePermissionText(stats: BigIntStats): string {
  const type = typeLetters.find(([is]) => is(stats))?.[1] ?? '-'
  const mode = Number(stats.mode)
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
