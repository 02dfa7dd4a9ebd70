import { lchownSync, lstatSync, mkdirSync, readdirSync, renameSync, rmdirSync, statSync, unlinkSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { AppError, isErrno, pathBytes } from '@wrenn/base'
import type { GuestUser } from '../identity/users.js'
import { asUser } from '../system/as-user.js'
import { randomHex } from '../system/random.js'
import { runAs } from '../system/run-as.js'
import type { Tools } from '../system/tools.js'
import { realPath } from './entry.js'
import { fileError, onPath } from './file-error.js'
import { kernelPath } from './kernel-path.js'
import { temporaryName } from './temporary-name.js'

/**
 * Makes a directory and its missing parents with the rights of `user`; all of them become `owner`'s.
 * @throws AppError `conflict` when it exists, `not_a_directory` when something else is there
 */
export function makeDirectory(path: string, user: GuestUser, owner = user): void {
  const existing = onPath(path, () => asUser(user, () => statSync(kernelPath(path), { throwIfNoEntry: false })))
  if (existing?.isDirectory()) throw new AppError('conflict', `directory already exists: ${path}`)
  if (existing !== undefined) throw new AppError('not_a_directory', `path '${path}' exists and is not a directory`)
  makeParents(path, user, owner)
  onPath(path, () => asUser(user, () => mkdirSync(kernelPath(path))))
  give(path, user, owner)
}

/** Makes the missing directories above `path` with the rights of `user`; they become `owner`'s. */
export function makeParents(path: string, user: GuestUser, owner = user): void {
  const parent = dirname(path)
  const missing = user === owner ? [] : missingAt(parent)
  try {
    asUser(user, () => mkdirSync(kernelPath(parent), { recursive: true }))
    for (const directory of missing) give(directory, user, owner)
  } catch (error) {
    // `recursive` fails for what exists only when it is not a directory.
    if (isErrno(error, 'EEXIST')) throw new AppError('not_a_directory', `path '${parent}' is not a directory`)
    throw fileError(error, parent)
  }
}

/** `path` and what is above it, as far as nothing is there. */
function missingAt(path: string): string[] {
  if (path === '/' || ifThere(() => lstatSync(kernelPath(path))) !== undefined) return []
  return [...missingAt(dirname(path)), path]
}

function give(path: string, maker: GuestUser, { uid, gid }: GuestUser): void {
  if (maker.uid !== uid) lchownSync(kernelPath(path), uid, gid)
}

/**
 * Renames; parents of the destination are made, and become `owner`'s. Where the kernel cannot rename (another file system, or a directory of the
 * image below the capsule's overlay) the tree is copied and the source removed.
 * @returns where it is now, by a path without links: what was moved may be the very link that `destination` went through
 * @throws AppError `file_not_found` when there is no source, `conflict` when both are names of one file, or one is a link to
 * the other
 */
export async function move(
  source: string,
  destination: string,
  { user, owner = user }: { readonly user: GuestUser; readonly owner?: GuestUser },
  tools: Tools,
): Promise<string> {
  onPath(source, () => asUser(user, () => lstatSync(kernelPath(source))))
  makeParents(destination, user, owner)
  const place = onPath(destination, () => asUser(user, () => entryOf(destination)))
  try {
    asUser(user, () => {
      requireOtherFile(source, destination)
      renameSync(kernelPath(source), kernelPath(destination))
    })
  } catch (error) {
    if (!isErrno(error, 'EXDEV')) throw fileError(error, destination)
    await moveAcross(source, destination, user, tools)
  }
  return place
}

/** To a name beside the destination first, so that what breaks off leaves the source whole and nothing half in place. */
async function moveAcross(source: string, destination: string, user: GuestUser, tools: Tools): Promise<void> {
  const beside = join(dirname(destination), temporaryName())
  try {
    await runMove(source, beside, user, tools)
  } catch (error) {
    await remove(beside, user)
    throw AppError.is(error) && /No space left on device/.test(error.message)
      ? new AppError('disk_full', `path '${destination}' cannot be written: the disk is full`, { cause: error })
      : error
  }
  try {
    asUser(user, () => renameSync(kernelPath(beside), kernelPath(destination)))
  } catch (error) {
    await runMove(beside, source, user, tools)
    throw fileError(error, destination)
  }
}

/** Arguments of a program are text in Node, so `xargs` hands `mv` the names, which may be any bytes. */
async function runMove(from: string, to: string, user: GuestUser, tools: Tools): Promise<void> {
  const names = Buffer.concat([from, to].flatMap((path) => [pathBytes(path), Buffer.of(0)]))
  await runAs(user, tools, [...tools.applet('xargs'), '-0', ...tools.applet('mv'), '-fT', '--'], names)
}

/**
 * Refuses what `mv` refuses. Where both names are of one file rename(2) does nothing, and says that it went well; to remove one of them
 * instead could lose the file when somebody moves the other way at the same time. A link in the place of the file that it leads to
 * would end in itself, and the file would be gone.
 */
function requireOtherFile(source: string, destination: string): void {
  const from = kernelPath(source)
  const stats = lstatSync(from)
  const there = lstatSync(kernelPath(destination), { throwIfNoEntry: false })
  if (there === undefined || stats.isDirectory()) return
  const isSameInode = stats.ino === there.ino && stats.dev === there.dev
  if (isSameInode && entryOf(source) !== entryOf(destination)) {
    throw new AppError('conflict', `path '${destination}' is another name of the same file as '${source}'`)
  }
  if (stats.isSymbolicLink() && !isSameInode && leadsTo(from, entryOf(destination))) {
    throw new AppError('conflict', `path '${destination}' is what the link '${source}' leads to`)
  }
}

function leadsTo(link: string | Buffer, place: string): boolean {
  try {
    return realPath(link) === place
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'EACCES', 'ENAMETOOLONG')) return false
    throw error
  }
}

/** The one path of an entry that goes through no link. */
function entryOf(path: string): string {
  return join(realPath(kernelPath(dirname(path))), basename(path))
}

/** Removes a file, a link or a whole tree; what is not there counts as removed. */
export async function remove(path: string, user: GuestUser): Promise<void> {
  if (path === '/') throw new AppError('invalid_request', 'The root directory cannot be removed.')
  try {
    // Found once: a link on the way to it may be among what is removed.
    const place = asUser(user, () => ifThere(() => entryOf(path)))
    if (place === undefined) return
    if (place === '/') throw new AppError('invalid_request', 'The root directory cannot be removed.')
    const top = pathBytes(place)
    const removal = removeSteps(top, top)
    while (!asUser(user, () => takeSteps(removal))) await new Promise(setImmediate)
  } catch (error) {
    throw fileError(error, path)
  }
}

const STEPS_PER_TURN = 500

function takeSteps(steps: Iterator<undefined>): boolean {
  for (let taken = 0; taken < STEPS_PER_TURN; taken++) if (steps.next().done) return true
  return false
}

/** Directories with longer paths are first moved up to where removing began: one more name must fit in PATH_MAX. */
const LONG_PATH_BYTES = 4_096 - 260

/** One system call's worth of removing per step, so that a large tree does not stop the agent. */
function* removeSteps(place: Buffer, top: Buffer): Generator<undefined, void> {
  const stats = ifThere(() => lstatSync(place))
  if (stats === undefined) return
  if (!stats.isDirectory()) return ignoringMissing(() => unlinkSync(place))
  const path = place.length > LONG_PATH_BYTES ? movedTo(top, place) : place
  for (const name of namesToRemove(path)) {
    yield undefined
    yield* removeSteps(Buffer.concat([path, Buffer.from('/'), name]), top)
  }
  ignoringMissing(() => rmdirSync(path))
}

/** What `look` finds; nothing where there is nothing, as below what is no directory. */
function ifThere<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
    throw error
  }
}

/** A directory that is empty can be removed by who may not look into it. */
function namesToRemove(directory: Buffer): readonly Buffer[] {
  try {
    return readdirSync(directory, { encoding: 'buffer' })
  } catch (error) {
    if (!isErrno(error, 'EACCES')) throw error
    try {
      rmdirSync(directory)
    } catch {
      throw error // that its content cannot be seen says more than that there is some
    }
    return []
  }
}

function movedTo(top: Buffer, path: Buffer): Buffer {
  const moved = Buffer.concat([top, Buffer.from(`/.removing-${randomHex(9)}`)])
  renameSync(path, moved)
  return moved
}

function ignoringMissing(step: () => void): void {
  try {
    step()
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
  }
}
