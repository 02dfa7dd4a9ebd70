/** What a tool in a sandbox sees beside the system's programs, and whether it may write there. */
export interface Bind {
  readonly from: string
  readonly to: string
  readonly writable?: boolean
}

interface Sandbox {
  readonly binds: readonly Bind[]
  readonly capabilities: readonly `CAP_${string}`[]
  readonly command: readonly string[]
}

/** Of the system: programs, and what speaking TLS and names need. */
const SYSTEM = [
  '/etc/ssl',
  '/etc/ca-certificates',
  '/etc/pki',
  '/etc/hosts',
  '/etc/containers/certs.d',
  '/etc/docker/certs.d',
]

/**
 * The command line that runs a tool on what strangers made: its own mounts, processes and an empty network; nothing to write to but `binds`, where no
 * device opens; the capabilities that are named and no way to more. It ends with who started it.
 * @see bwrap(1)
 */
export function sandboxed({ binds, capabilities, command }: Sandbox): readonly [string, ...string[]] {
  return [
    'bwrap',
    ...['--unshare-pid', '--unshare-ipc', '--unshare-uts', '--unshare-net', '--die-with-parent', '--new-session'],
    ...['--clearenv', '--setenv', 'PATH', '/usr/sbin:/usr/bin:/sbin:/bin', '--setenv', 'HOME', '/tmp'],
    ...['--ro-bind', '/usr', '/usr', '--proc', '/proc', '--dev', '/dev', '--perms', '1777', '--tmpfs', '/tmp'],
    // Folders that it makes for what is bound into them are root's alone.
    ...['/etc', '/opt'].flatMap((path) => ['--dir', path]),
    ...['bin', 'sbin', 'lib', 'lib64'].flatMap((name) => ['--symlink', `usr/${name}`, `/${name}`]),
    ...SYSTEM.flatMap((path) => ['--ro-bind-try', path, path]),
    ...binds.flatMap(({ from, to, writable }) => [writable === true ? '--bind' : '--ro-bind', from, to]),
    ...['--cap-drop', 'ALL', ...capabilities.flatMap((name) => ['--cap-add', name]), '--chdir', '/', '--'],
    ...command,
  ]
}
