import { AppError } from '@wrenn/base'
import type { Caller } from '../identity/identity.js'
import type { GuestUser } from '../identity/users.js'

const root: GuestUser = { name: 'root', uid: 0, gid: 0, home: '/root', shell: '/bin/sh', groups: [] }

/**
 * Does something with files as `user`. Where a client of the E2B wire is refused that, root does it: there the user only says whose that is
 * which is made. `work` gets the rights it has, and is called again only if it has thrown.
 * @throws what `work` throws
 */
export function withRightsFor<T>(caller: Caller, user: GuestUser, work: (rights: GuestUser) => T): T {
  try {
    return work(user)
  } catch (error) {
    if (!mayInsist(caller, user, error)) throw error
  }
  return work(root)
}

/** As {@link withRightsFor}, for what takes its time. */
export async function withRightsForAll<T>(
  caller: Caller,
  user: GuestUser,
  work: (rights: GuestUser) => Promise<T>,
): Promise<T> {
  try {
    return await work(user)
  } catch (error) {
    if (!mayInsist(caller, user, error)) throw error
  }
  return await work(root)
}

function mayInsist(caller: Caller, user: GuestUser, error: unknown): boolean {
  return caller === 'client' && user.uid !== 0 && AppError.is(error, 'permission_denied')
}
