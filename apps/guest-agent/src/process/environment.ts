import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import { AppError, isErrno } from '@wrenn/base'
import type { GuestUser } from '../identity/users.js'
import { asUser } from '../system/as-user.js'
import type { LocaleVariables } from './locale.js'

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

type Variables = Readonly<Record<string, string>>

/**
 * The environment of a process; later layers win: system with its language, capsule (`/init`), request.
 * @throws AppError `invalid_request` for a name that no environment can hold
 */
export function environmentOf(
  user: GuestUser,
  locale: LocaleVariables,
  capsule: Variables,
  request: Variables,
): Record<string, string> {
  const wrong = Object.keys(request).find((name) => name === '' || name.includes('='))
  if (wrong !== undefined) {
    throw new AppError('invalid_request', `The name of a variable cannot be empty or contain "=", as "${wrong}" does.`)
  }
  const base = { PATH: DEFAULT_PATH, HOME: user.home, USER: user.name, LOGNAME: user.name }
  return { ...base, ...locale, ...capsule, ...request }
}

/** An absolute path; `~` and relative paths start at the user's home. */
export function expandPath(path: string, user: GuestUser): string {
  if (path === '~' || path.startsWith('~/')) return resolve(user.home, `.${path.slice(1)}`)
  return resolve(user.home, path)
}

/** A path as clients give it: empty means the capsule's default directory. @throws AppError `invalid_request` */
export function clientPath(path: string, user: GuestUser, defaultCwd: string | undefined): string {
  if (path.includes('\0')) throw new AppError('invalid_request', 'A path cannot contain NUL bytes.')
  return expandPath(path === '' ? (defaultCwd ?? '~') : path, user)
}

/**
 * The directory a process starts in. One the caller named must exist and be open to the user; of the defaults the first usable
 * one counts, so that an image without a home still runs commands.
 * @throws AppError `invalid_request`
 */
export function workingDirectory(wanted: string | undefined, fallback: string | undefined, user: GuestUser): string {
  if (wanted !== undefined && wanted !== '') return checked(expandPath(wanted, user), user)
  const defaults = [fallback === undefined ? user.home : expandPath(fallback, user), user.home]
  return defaults.find((path) => problemWith(path, user) === undefined) ?? '/'
}

function checked(path: string, user: GuestUser): string {
  const problem = problemWith(path, user)
  if (problem === undefined) return path
  throw new AppError('invalid_request', `cwd '${path}' ${problem}`)
}

/** Asks for the directory's own `.`, which needs what entering it needs: search permission. */
function problemWith(path: string, user: GuestUser): string | undefined {
  try {
    asUser(user, () => statSync(`${path}/.`))
    return undefined
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return 'does not exist'
    if (isErrno(error, 'ENOTDIR')) return 'is not a directory'
    if (isErrno(error, 'EACCES')) return `is not accessible for user '${user.name}'`
    if (isErrno(error, 'ELOOP', 'ENAMETOOLONG', 'ERR_INVALID_ARG_VALUE')) return 'is not a valid path'
    throw error
  }
}
