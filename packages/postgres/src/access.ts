import { lstat } from 'node:fs/promises'
import { AppError, obstacleOn } from '@wrenn/base'

/** Who the server runs as: another user when we are root, ourselves otherwise. */
export interface Identity {
  readonly uid: number
  readonly gid: number
  /** True when starting as `uid` needs a change of user. */
  readonly differs: boolean
}

/**
 * PostgreSQL refuses to run as root, so root must name another user; anybody else gets themselves, whatever they name.
 * @throws AppError `invalid_config` for root without a `uid`, or with that of root
 */
export function chooseIdentity(uid: number | undefined, gid: number | undefined): Identity {
  const own = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
  if (own.uid !== 0) return { ...own, differs: false }
  if (uid === undefined || uid === 0) {
    throw new AppError(
      'invalid_config',
      'PostgreSQL refuses to run as root: give `uid` and `gid` of an unprivileged user.',
    )
  }
  return { uid, gid: gid ?? uid, differs: true }
}

/**
 * PostgreSQL must be able to walk to its data directory.
 * @throws AppError `invalid_config` naming the folder that its user cannot enter (`/root`, usually).
 */
export async function assertReachable(dir: string, who: Identity): Promise<void> {
  const at = await obstacleOn(dir, who)
  if (at === undefined) return
  throw new AppError(
    'invalid_config',
    `The user of the embedded PostgreSQL (uid ${who.uid}) cannot enter ${at}: choose a directory outside it ` +
      `(for example /var/lib/wrenn), or run \`chmod o+x ${at}\`.`,
  )
}

/** A folder that another user made before us must not become our socket's home. */
export async function assertOwnedBy(path: string, uids: readonly number[]): Promise<void> {
  const info = await lstat(path)
  if (info.isDirectory() && uids.includes(info.uid)) return
  throw new AppError(
    'conflict',
    `${path} exists and belongs to someone else (uid ${info.uid}): remove it and start again.`,
  )
}
