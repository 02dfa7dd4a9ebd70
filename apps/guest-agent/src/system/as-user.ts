import type { GuestUser } from '../identity/users.js'

/**
 * Runs `work` with the file-system rights of `user`: the kernel itself decides what is allowed and who owns what is made.
 *
 * The switch holds for the whole process, thread pool included. So `work` must be synchronous, and no other part of the agent
 * may use an asynchronous file call that takes a *path* (they could run as `user` by accident); asynchronous calls on open
 * descriptors are fine, since rights were checked when they were opened.
 */
export function asUser<T>(user: GuestUser, work: () => T): T {
  if (user.uid === 0 || process.geteuid?.() !== 0) return work()
  try {
    process.setgroups?.([user.gid, ...user.groups])
    process.setegid?.(user.gid)
    process.seteuid?.(user.uid)
    return work()
  } finally {
    process.seteuid?.(0)
    process.setegid?.(0)
    process.setgroups?.([])
  }
}
