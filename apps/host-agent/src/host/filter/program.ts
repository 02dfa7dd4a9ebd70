import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, open, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText, waitFor } from '@wrenn/base'
import { hostToolEnvironment } from '../exec.js'
import { FilterLine } from './line.js'
import { FILTER_PORT } from './namespace.js'

const START_TIMEOUT_MS = 15_000
/** Two for each of 8,192 connections, and look-ups. */
const OPEN_FILES = 32_768

/**
 * A socket that takes connections to any address needs an option that Node.js cannot set: it is opened before Node.js is run, which
 * gets it as descriptor 3. 0 and 19 are IPPROTO_IP and IP_TRANSPARENT of ip(7).
 */
const OPENER = `use Socket; use POSIX ();
$^F = 255; # what is opened stays open over exec
my $port = shift;
socket(my $listener, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, 1) or die "SO_REUSEADDR: $!";
setsockopt($listener, 0, 19, 1) or die "IP_TRANSPARENT: $!";
bind($listener, sockaddr_in($port, INADDR_ANY)) or die "bind: $!";
listen($listener, 4096) or die "listen: $!";
POSIX::dup2(fileno($listener), 3) or die "dup2: $!";
exec(@ARGV) or die "exec: $!";`

/** The filter's program and what it is started with. */
export interface FilterProgram {
  /** What Node.js is told to run it; the last word is the program's file. */
  readonly command: readonly string[]
  /** Whom it becomes. */
  readonly uid: number
  /** Certificates that hosts with rules may have beside public ones: WRENN_EGRESS_CA_FILE. */
  readonly caPath?: string | undefined
  /** Directory of its control socket and its last words; made, and open to root alone. */
  readonly runDir: string
  /** The groups that it joins before it runs. */
  readonly cgroups?: () => Promise<readonly string[]>
}

function socketOf({ runDir }: FilterProgram): string {
  return join(runDir, 'control.sock')
}

/** What a running one is told apart by. */
export async function versionOf({ command, uid, caPath = '' }: FilterProgram): Promise<string> {
  const file = command.at(-1)
  if (file === undefined) throw new Error('no program')
  return createHash('sha256')
    .update(await readFile(file))
    .update(String(uid))
    .update(caPath)
    .update(caPath === '' ? '' : await readFile(caPath))
    .digest('hex')
}

/** A line to the one that runs. @returns nothing when none does, or another version, which then ends */
export async function findFilter(program: FilterProgram, version: string): Promise<FilterLine | undefined> {
  const line = await FilterLine.open(socketOf(program))
  if (line === undefined) return undefined
  const answer = await line.ask({ op: 'hello' }).catch(() => undefined)
  if (answer?.version === version) return line
  await endFilter(line)
  return undefined
}

/** Ends it; it says no more than that. */
export async function endFilter(line: FilterLine): Promise<void> {
  line.ask({ op: 'end' }).catch(() => {}) // its answer is the line's end
  await line.closed
}

/** Starts it in its namespace, on its own: it outlives us. @throws AppError `engine_failure` with its last words */
export async function startFilter(
  program: FilterProgram,
  {
    namespace,
    nameServer,
    version,
  }: { readonly namespace: string; readonly nameServer: string; readonly version: string },
): Promise<FilterLine> {
  const { runDir, uid, command, cgroups, caPath = '' } = program
  await mkdir(runDir, { recursive: true, mode: 0o700 })
  await rm(socketOf(program), { force: true })
  const groups = (await cgroups?.()) ?? []
  const script = `ulimit -n ${OPEN_FILES}; for group in ${groups.join(' ')}; do echo $$ > "$group/cgroup.procs"; done; exec "$@"`
  const opener = ['perl', '-e', OPENER, String(FILTER_PORT)]
  const filter = [process.execPath, ...command, socketOf(program), nameServer, String(uid), version, caPath]
  await using words = await open(join(runDir, 'last-words'), 'w')
  const child = spawn('nsenter', [`--net=/run/netns/${namespace}`, 'sh', '-c', script, 'sh', ...opener, ...filter], {
    env: hostToolEnvironment,
    detached: true,
    stdio: ['ignore', words.fd, words.fd],
    cwd: '/',
  })
  child.unref()
  const ended = once(child, 'exit').catch(() => [])
  let isOver = false
  void ended.then(() => {
    isOver = true
  })
  try {
    const connect = async (): Promise<FilterLine | undefined> => {
      if (isOver) throw new AppError('engine_failure', 'it ended')
      return await FilterLine.open(socketOf(program))
    }
    return await waitFor(connect, { timeoutMs: START_TIMEOUT_MS, what: 'the egress filter to answer' })
  } catch (error) {
    if (!isOver) child.kill('SIGKILL')
    const said = (await readFile(join(runDir, 'last-words'), 'utf8')).trim().split('\n').slice(-3).join(' / ')
    throw new AppError('engine_failure', `The egress filter cannot be started: ${errorText(error)} ${said}`, {
      cause: error,
    })
  }
}
