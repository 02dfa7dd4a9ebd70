import { createHash } from 'node:crypto'
import { chmod, chown, mkdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isErrno } from '@wrenn/base'
import { assertOwnedBy, type Identity } from './access.js'

/** The port is only a part of the socket's name: the server does not listen on TCP. */
export const SOCKET_PORT = 5432
/** The name that libpq makes of a port and looks for in the socket's folder. */
export const SOCKET_FILE = `.s.PGSQL.${SOCKET_PORT}`

/** `sun_path` holds 108 bytes with its final zero, unix(7). */
const MAX_SOCKET_PATH_BYTES = 107

/**
 * The folder below `dir`, or where that is too long for a unix socket one below /run (for root) or the temporary directory,
 * named after a digest of `dir`, so that every start finds the same.
 */
export function chooseSocketDir(dir: string): string {
  const near = join(dir, 'socket')
  if (Buffer.byteLength(join(near, SOCKET_FILE)) <= MAX_SOCKET_PATH_BYTES) return near
  const key = createHash('sha256').update(dir).digest('hex').slice(0, 16)
  return join(process.getuid?.() === 0 ? '/run' : tmpdir(), `wrenn-pg-${key}`)
}

/**
 * Makes the folder of the server's socket. Whoever may enter it is let in as the database's superuser, so it is open to
 * the server's own user and to `clientGid` only.
 */
export async function makeSocketDir(path: string, who: Identity, clientGid: number): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 })
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error
    await assertOwnedBy(path, [who.uid, process.getuid?.() ?? who.uid])
  }
  if (who.differs) await chown(path, who.uid, clientGid)
  await chmod(path, who.differs ? 0o710 : 0o700)
}
