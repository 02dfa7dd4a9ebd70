import { lstatSync, mkdirSync, readdirSync, renameSync, rmdirSync, statSync, unlinkSync } from 'node:fs'
import { dirname } from 'node:path'
import { AppError, isErrno } from '@wrenn/base'
import type { GuestUser } from '../identity/users.js'
import { asUser } from '../system/as-user.js'
import { fileError, onPath } from './file-error.js'

/**
 * Makes a directory and its missing parents, all the user's own.
 * @throws AppError `conflict` when it exists, `not_a_directory` when something else is there
 */
export function makeDirectory(path: string, user: GuestUser): void {
  const existing = onPath(path, () => asUser(user, () => statSync(path, { throwIfNoEntry: false })))
  if (existing?.isDirectory()) throw new AppError('conflict', `directory already exists: ${path}`)
  if (existing !== undefined) throw new AppError('not_a_directory', `path '${path}' exists and is not a directory`)
  makeParents(path, user)
  onPath(path, () => asUser(user, () => mkdirSync(path)))
}

/** Makes the missing directories above `path`. What the user makes is the user's. */
export function makeParents(path: string, user: GuestUser): void {
  const parent = dirname(path)
  onPath(parent, () => asUser(user, () => mkdirSync(parent, { recursive: true })))
}

/** Renames; parents of the destination are made. @throws AppError `file_not_found` when there is no source */
export function move(source: string, destination: string, user: GuestUser): void {
  onPath(source, () => asUser(user, () => lstatSync(source)))
  makeParents(destination, user)
  onPath(destination, () => asUser(user, () => renameSync(source, destination)))
}

/** Removes a file, a link or a whole tree; what is not there counts as removed. */
export async function remove(path: string, user: GuestUser): Promise<void> {
  if (path === '/') throw new AppError('invalid_request', 'The root directory cannot be removed.')
  try {
    const removal = removeSteps(path)
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

/** One system call's worth of removing per step, so that a large tree does not stop the agent. */
function* removeSteps(path: string | Buffer): Generator<undefined, void> {
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (stats === undefined) return
  if (!stats.isDirectory()) return ignoringMissing(() => unlinkSync(path))
  for (const name of readdirSync(path, { encoding: 'buffer' })) {
    yield undefined
    yield* removeSteps(Buffer.concat([Buffer.from(path), Buffer.from('/'), name]))
  }
  ignoringMissing(() => rmdirSync(path))
}

function ignoringMissing(step: () => void): void {
  try {
    step()
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
  }
}
