/** Who a program is to run as: with no other groups, and no way to gain rights. */
export interface RunAs {
  readonly uid: number
  readonly gid: number
}

/** How a bound program dies, and who it is while it lives. */
export interface BoundOptions {
  /** What the kernel sends it when we die, however we die. */
  readonly signal: 'INT' | 'TERM' | 'KILL'
  /** @default as ourselves */
  readonly user?: RunAs | undefined
}

/** The kernel tells of a death from now on only: a program whose starter was dead before it asked must not start. */
const UNLESS_ORPHANED = 'test "$PPID" = "$0" && exec "$@"'

/**
 * The command line, program first, that starts a program as somebody else and bound to this process: it ends when we do, from
 * its first moment on. To be started from the main thread, whose death is what counts; setpriv(1), prctl(2).
 */
export function boundCommand(
  program: string,
  args: readonly string[],
  { signal, user }: BoundOptions,
): readonly [string, ...string[]] {
  const identity = user && [`--reuid=${user.uid}`, `--regid=${user.gid}`, '--clear-groups', '--no-new-privs']
  const shell = ['/bin/sh', '-c', UNLESS_ORPHANED, String(process.pid)]
  return ['setpriv', ...(identity ?? []), '--pdeathsig', signal, ...shell, program, ...args]
}
