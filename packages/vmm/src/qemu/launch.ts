import { type ChildProcess, spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { lchown, open, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { AppError } from '@wrenn/base'
import type { Confinement, NetworkSlot } from '../engine.js'

/** Under memory pressure the kernel ends a guest before it ends anything that manages guests. */
const OOM_SCORE_ADJ = 500

/**
 * Joins the cgroups given before `--`, then becomes the command after it; the process id stays. Everything comes in as
 * positional arguments, nothing is pasted into the script.
 */
const LAUNCHER = `set -eu
umask 077
ulimit -c 0
echo "$1" >/proc/self/oom_score_adj
shift
while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done
shift
exec "$@"`

/** A command and the cage it is put into: cgroups, network namespace, user, no capabilities. */
export interface LaunchOptions {
  /** Program and arguments; found on a fixed PATH, because nothing of our own environment is passed on. */
  readonly command: readonly string[]
  readonly confinement: Confinement
  /** `undefined` leaves it in our own namespace, as a guest without a network needs none. */
  readonly network: NetworkSlot | undefined
  /** Supplementary groups: the one of /dev/kvm, or none. */
  readonly groups: readonly number[]
  /** New file that takes the process's stdout and stderr. */
  readonly logPath: string
}

/** One of the two is there. */
export interface ChildExit {
  readonly exitCode: number | undefined
  readonly signal: string | undefined
}

/** A child in a session of its own: ending us does not end it. */
export interface Launched {
  /** Of the command itself: the launcher becomes it by exec. */
  readonly pid: number
  /** Resolves when the child has ended; never rejects. */
  readonly exited: Promise<ChildExit>
  /** From now on the child does not keep our own process alive. */
  release(): void
}

/** Arguments of `/bin/sh` that start the confined command. */
export function launcherArguments(options: LaunchOptions): string[] {
  const { confinement, network } = options
  const enterNetwork = network ? ['nsenter', `--net=/run/netns/${network.namespace}`, '--'] : []
  const groups = options.groups.length > 0 ? [`--groups=${options.groups.join(',')}`] : ['--clear-groups']
  const drop = ['--bounding-set=-all', '--inh-caps=-all', '--ambient-caps=-all', '--no-new-privs']
  const identity = [`--reuid=${confinement.uid}`, `--regid=${confinement.gid}`, ...groups, ...drop]
  return [
    ...['-c', LAUNCHER, 'wrenn-launch', String(OOM_SCORE_ADJ), ...confinement.cgroups, '--'],
    ...[...enterNetwork, 'setpriv', ...identity, '--', ...options.command],
  ]
}

/**
 * Starts a confined process in a session of its own, which outlives this one.
 * @throws AppError `engine_failure` when not even the launcher starts.
 */
export async function launch(options: LaunchOptions): Promise<Launched> {
  await rm(options.logPath, { force: true })
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_APPEND | constants.O_NOFOLLOW
  const log = await open(options.logPath, flags, 0o600)
  try {
    const child = spawn('/bin/sh', launcherArguments(options), {
      cwd: '/',
      detached: true,
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
      stdio: ['ignore', log.fd, log.fd],
    })
    return await started(child)
  } finally {
    await log.close()
  }
}

async function started(child: ChildProcess): Promise<Launched> {
  const exited = new Promise<ChildExit>((resolve) => {
    child.once('exit', (code, signal) => resolve({ exitCode: code ?? undefined, signal: signal ?? undefined }))
  })
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve)
    child.once('error', (cause) =>
      reject(new AppError('engine_failure', `The launcher did not start: ${cause.message}.`, { cause })),
    )
  })
  if (child.pid === undefined) throw new Error('a spawned child has a pid')
  return { pid: child.pid, exited, release: () => child.unref() }
}

/** A listening socket for one peer. Disposing stops listening and leaves the accepted connection open. */
export interface SocketOffer extends AsyncDisposable {
  /** The one connection that comes; its `error` events are the taker's business. */
  readonly accepted: Promise<Socket>
}

/** Listens on a unix socket for one connection from a process of `owner`; the socket's file goes with the offer. */
export async function offerSocket(
  path: string,
  owner: { readonly uid: number; readonly gid: number },
): Promise<SocketOffer> {
  await rm(path, { force: true })
  const server = createServer()
  server.maxConnections = 1
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  await lchown(path, owner.uid, owner.gid)
  return {
    accepted,
    async [Symbol.asyncDispose]() {
      server.close() // existing connections stay open; the file is unlinked
    },
  }
}
