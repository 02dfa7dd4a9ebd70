import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import { shellLine } from '@wrenn/protocol'
import type { BuildPlan, ProcessDefaults } from '../../store/schema.js'
import type { BuildLog } from './build-log.js'
import type { BuildGuest } from './guest.js'
import type { ResolvedOrigin, StartedBy } from './origin.js'

const LOOK_EVERY_MS = 500
/** How long a start command is watched that nothing else tells of: one that fails at once is seen to. */
const WATCH_MS = 3_000
/** How long a port is waited for, unless a ready command had less. */
const PORTS_WAIT_MS = 30_000
/** What a ready command prints is nobody's matter. */
const silent = { stdout: async () => {}, stderr: async () => {} }

export interface StartDeps {
  readonly guest: Pick<BuildGuest, 'run'>
  readonly log: Pick<BuildLog, 'say' | 'stream'>
  readonly step: string
  readonly readyWithinMs: number
  readonly signal: AbortSignal
}

/** What is to run in a template. */
interface Start extends StartedBy {
  /** Nobody has asked for it but the image, whose command may be a shell or want settings: then nothing runs. */
  readonly isOfImage: boolean
  /** One of them is listened on when it is ready. */
  readonly ports: readonly number[]
}

/** What the plan says; else what the image says that it begins with; else what a template brings that its archive was made of. */
export function startOf(
  plan: Pick<BuildPlan, 'startCmd' | 'readyCmd' | 'entrypoint' | 'command' | 'ports'>,
  {
    container = { entrypoint: [], command: [], ports: [] },
    ...origin
  }: Pick<ResolvedOrigin, 'container' | 'startCmd' | 'readyCmd'>,
): Start {
  const { startCmd, readyCmd, entrypoint, command, ports = [] } = plan
  // As container engines have it: another entry point has no use for the image's command.
  const args = command ?? (entrypoint === undefined ? container.command : [])
  const argv = [...(entrypoint ?? container.entrypoint), ...args]
  const line = startCmd ?? (argv.length === 0 ? undefined : shellLine(argv))
  const isOfImage = (startCmd ?? entrypoint ?? command) === undefined && line !== undefined
  const isSaid = (line ?? entrypoint ?? command ?? readyCmd) !== undefined
  const commands = commandsOf(isSaid ? { startCmd: line, readyCmd } : origin)
  return { ...commands, isOfImage, ports: [...new Set([...ports, ...container.ports])] }
}

function commandsOf({ startCmd, readyCmd }: Pick<BuildPlan, 'startCmd' | 'readyCmd'>): StartedBy {
  return { ...(startCmd === undefined ? {} : { startCmd }), ...(readyCmd === undefined ? {} : { readyCmd }) }
}

/**
 * Starts the start command and waits until the ready command succeeds; what was started runs on, and is in the snapshot that follows.
 * @returns what the template is started by from then on
 * @throws AppError `build_failed` when the start command fails first, or it takes too long
 */
export async function startAndWait(deps: StartDeps, start: Start, state: ProcessDefaults): Promise<StartedBy> {
  const { startCmd, readyCmd, isOfImage, ports } = start
  if (startCmd === undefined && readyCmd === undefined) return {}
  if (startCmd !== undefined)
    deps.log.say(deps.step, `${isOfImage ? 'Starting, as the image says' : 'Starting'}: ${startCmd}`)
  const left = new AbortController()
  const failed = new AbortController()
  const started = startCmd === undefined ? undefined : follow(deps, startCmd, state, { left, failed })
  try {
    if (readyCmd !== undefined) await untilReady(deps, readyCmd, state, failed.signal)
    else if (ports.length > 0) await untilListening(deps, ports, state, failed.signal)
    else await watch(deps, failed.signal)
  } catch (error) {
    if (!isOfImage || readyCmd !== undefined || !AppError.is(error, 'build_failed')) throw error
    deps.log.say(deps.step, `${error.message} Nothing runs in the template; CMD or ENTRYPOINT says what is to.`, 'warn')
    return {}
  } finally {
    left.abort()
    await started
  }
  return commandsOf(start)
}

interface Ends {
  readonly left: AbortController
  readonly failed: AbortController
}

/** Logs what the start command prints until it is left; never throws. */
async function follow(
  { guest, log, step }: StartDeps,
  line: string,
  state: ProcessDefaults,
  { left, failed }: Ends,
): Promise<void> {
  const [stdout, stderr] = [log.stream(step, 'info'), log.stream(step, 'warn')]
  const output = {
    stdout: (bytes: Uint8Array) => stdout.write(bytes),
    stderr: (bytes: Uint8Array) => stderr.write(bytes),
  }
  try {
    const code = await guest.run({ ...state, cmd: '/bin/bash', args: ['-c', line] }, output, left.signal)
    // One that ends well may have left a service behind.
    if (code !== 0) failed.abort(new AppError('build_failed', `The start command ended with exit code ${code}.`))
  } catch (error) {
    if (!left.signal.aborted) failed.abort(error)
  }
  await stdout.end()
  await stderr.end()
}

async function untilReady(
  deps: StartDeps,
  readyCmd: string,
  state: ProcessDefaults,
  failed: AbortSignal,
): Promise<void> {
  const { log, step, readyWithinMs } = deps
  log.say(step, `Waiting until this succeeds: ${readyCmd}`)
  if (await succeedsWithin(readyWithinMs, deps, readyCmd, state, failed)) return
  const text = `The ready command did not succeed within ${readyWithinMs / 1000} s (WRENN_BUILD_READY_SEC).`
  throw new AppError('build_failed', text)
}

/** A capsule whose server does not answer yet is no failed one: some say ports that they serve only when asked to. */
async function untilListening(
  deps: StartDeps,
  ports: readonly number[],
  state: ProcessDefaults,
  failed: AbortSignal,
): Promise<void> {
  const { log, step, readyWithinMs } = deps
  const withinMs = Math.min(PORTS_WAIT_MS, readyWithinMs)
  const called = `port ${ports.join(', ')}`
  log.say(step, `Waiting until somebody listens on ${called}.`)
  const look = listeningOn(ports)
  if (await succeedsWithin(withinMs, deps, look, state, failed)) return
  log.say(step, `Nobody listens on ${called} after ${withinMs / 1000} s; the template is kept as it is.`, 'warn')
}

/**
 * A line for bash that succeeds when one of the ports is listened on, at whatever address: by what the kernel says of its sockets (proc(5)), for a
 * server may take no connection without asking for more. Nothing but what is built into the shell: an image may have no other program.
 */
export function listeningOn(ports: readonly number[]): string {
  const states = ports.map((port) => `'0A '${port.toString(16).toUpperCase().padStart(4, '0')}`).join('|')
  const each = `while read -r _ at _ state _; do case "$state \${at##*:}" in ${states}) exit 0 ;; esac; done <$file`
  return `for file in /proc/net/tcp /proc/net/tcp6; do [ ! -r $file ] || ${each}; done; exit 1`
}

/** @returns false when it is late */
async function succeedsWithin(
  ms: number,
  { guest, signal }: StartDeps,
  line: string,
  state: ProcessDefaults,
  failed: AbortSignal,
): Promise<boolean> {
  const late = AbortSignal.timeout(ms)
  const until = AbortSignal.any([failed, late])
  try {
    const command = { ...state, cmd: '/bin/bash', args: ['-c', line] }
    while ((await guest.run(command, silent, until)) !== 0) await delay(LOOK_EVERY_MS, undefined, { signal: until })
    failed.throwIfAborted()
    return true
  } catch (error) {
    signal.throwIfAborted()
    failed.throwIfAborted()
    if (!late.aborted) throw error
    return false
  }
}

async function watch({ signal }: StartDeps, failed: AbortSignal): Promise<void> {
  await delay(WATCH_MS, undefined, { signal: AbortSignal.any([signal, failed]) }).catch(() => {})
  signal.throwIfAborted()
  failed.throwIfAborted()
}
