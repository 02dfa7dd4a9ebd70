/** What a tool in a sandbox sees beside the system's programs, and whether it may write there. */
export interface Bind {
  readonly from: string
  readonly to: string
  readonly writable?: boolean
}

interface Sandbox {
  readonly binds: readonly Bind[]
  /** Whether it sees which authorities and names this machine knows, for speaking TLS. @default false */
  readonly speaks?: boolean
  readonly capabilities: readonly `CAP_${string}`[]
  readonly fileBytes: number
  readonly command: readonly string[]
}

/**
 * Files alone: beside them lie private keys, and what is in `certs.d` skopeo would show a registry for a user as if the operator asked.
 * @see https://pkg.go.dev/crypto/x509#SystemCertPool
 */
const SPEAKING = ['/etc/hosts', '/etc/ssl/certs/ca-certificates.crt']
/** Of what may be kept in its `/tmp`, which is memory. */
const TMP_BYTES = 64 * 2 ** 20
/** Of each process: what it may take of memory beside files (RLIMIT_DATA; Go and Node.js reserve far more addresses than they use). */
const DATA_BYTES = 2 * 2 ** 30
/** Processes and threads of the user it runs as; a fetch has about 40. Root has no such limit. */
const MAX_TASKS = 4_096

/** Where programs are in it. */
export const SANDBOX_PATH = '/usr/sbin:/usr/bin:/sbin:/bin'

/**
 * The command line that runs a tool on what strangers made: its own mounts, processes and an empty network; nothing to write to but `binds`, where no
 * device opens, and a small `/tmp`; the capabilities that are named and no way to more; no file larger than `fileBytes`. It ends with who started it.
 * @see bwrap(1), prlimit(1)
 */
export function sandboxed({
  binds,
  speaks = false,
  capabilities,
  fileBytes,
  command,
}: Sandbox): readonly [string, ...string[]] {
  return [
    'bwrap',
    ...['--unshare-pid', '--unshare-ipc', '--unshare-uts', '--unshare-net', '--die-with-parent', '--new-session'],
    ...['--clearenv', '--setenv', 'PATH', SANDBOX_PATH, '--setenv', 'HOME', '/tmp'],
    ...['--ro-bind', '/usr', '/usr', '--proc', '/proc', '--dev', '/dev'],
    ...['--size', String(TMP_BYTES), '--perms', '1777', '--tmpfs', '/tmp'],
    // Folders that it makes for what is bound into them are root's alone.
    ...['/etc', '/etc/ssl', '/etc/ssl/certs', '/opt'].flatMap((path) => ['--dir', path]),
    ...['bin', 'sbin', 'lib', 'lib64'].flatMap((name) => ['--symlink', `usr/${name}`, `/${name}`]),
    ...(speaks ? SPEAKING : []).flatMap((path) => ['--ro-bind-try', path, path]),
    ...binds.flatMap(({ from, to, writable }) => [writable === true ? '--bind' : '--ro-bind', from, to]),
    ...['--remount-ro', '/dev', '--remount-ro', '/'],
    ...['--cap-drop', 'ALL', ...capabilities.flatMap((name) => ['--cap-add', name]), '--chdir', '/', '--'],
    ...['prlimit', `--fsize=${fileBytes}`, `--data=${DATA_BYTES}`, `--nproc=${MAX_TASKS}`, '--core=0'],
    ...command,
  ]
}
