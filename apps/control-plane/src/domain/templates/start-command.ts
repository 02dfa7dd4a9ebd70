import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import { shellLine } from '@wrenn/protocol'
import type { BuildPlan, ProcessDefaults } from '../../store/schema.js'
import type { BuildLog } from './build-log.js'
import type { BuildGuest } from './guest.js'
import type { ResolvedOrigin, StartedBy } from './origin.js'

const LOOK_EVERY_MS = 500
/** How long a start command is watched that no ready command tells of: one that fails at once is seen to. */
const WATCH_MS = 500
/** The same of an image's, which may be anything: a server, or a shell that finds nobody at its terminal. */
const IMAGE_WATCH_MS = 3_000
/** What a ready command prints is nobody's matter. */
const silent = { stdout: async () => {}, stderr: async () => {} }

interface StartDeps {
  readonly guest: BuildGuest
  readonly log: BuildLog
  readonly step: string
  readonly readyWithinMs: number
  readonly signal: AbortSignal
}

/** What is to run in a template. */
interface Start extends StartedBy {
  /** Nobody has asked for it but the image, whose command may be a shell or want settings: then nothing runs. */
  readonly isOfImage: boolean
}

/** What the plan says; else what the image says that it begins with; else what a template brings that its archive was made of. */
export function startOf(
  { startCmd, readyCmd, entrypoint, command }: Pick<BuildPlan, 'startCmd' | 'readyCmd' | 'entrypoint' | 'command'>,
  {
    container = { entrypoint: [], command: [] },
    ...origin
  }: Pick<ResolvedOrigin, 'container' | 'startCmd' | 'readyCmd'>,
): Start {
  // As container engines have it: another entry point has no use for the image's command.
  const args = command ?? (entrypoint === undefined ? container.command : [])
  const argv = [...(entrypoint ?? container.entrypoint), ...args]
  const line = startCmd ?? (argv.length === 0 ? undefined : shellLine(argv))
  const isOfImage = (startCmd ?? entrypoint ?? command) === undefined && line !== undefined
  const isSaid = line !== undefined || readyCmd !== undefined
  return { ...commandsOf(isSaid ? { startCmd: line, readyCmd } : origin), isOfImage }
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
  const { startCmd, readyCmd, isOfImage } = start
  if (startCmd === undefined && readyCmd === undefined) return {}
  if (startCmd !== undefined)
    deps.log.say(deps.step, `${isOfImage ? 'Starting, as the image says' : 'Starting'}: ${startCmd}`)
  const left = new AbortController()
  const failed = new AbortController()
  const started = startCmd === undefined ? undefined : follow(deps, startCmd, state, { left, failed })
  try {
    const watchMs = isOfImage ? IMAGE_WATCH_MS : WATCH_MS
    await untilReady({ ...deps, watchMs }, readyCmd, state, failed.signal)
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
  { guest, log, step, readyWithinMs, watchMs, signal }: StartDeps & { readonly watchMs: number },
  readyCmd: string | undefined,
  state: ProcessDefaults,
  failed: AbortSignal,
): Promise<void> {
  if (readyCmd === undefined) {
    await delay(watchMs, undefined, { signal: AbortSignal.any([signal, failed]) }).catch(() => {})
    signal.throwIfAborted()
    failed.throwIfAborted()
    return
  }
  log.say(step, `Waiting until this succeeds: ${readyCmd}`)
  const late = AbortSignal.timeout(readyWithinMs)
  const until = AbortSignal.any([failed, late])
  try {
    const command = { ...state, cmd: '/bin/bash', args: ['-c', readyCmd] }
    while ((await guest.run(command, silent, until)) !== 0) await delay(LOOK_EVERY_MS, undefined, { signal: until })
    failed.throwIfAborted()
  } catch (error) {
    signal.throwIfAborted()
    failed.throwIfAborted()
    if (!late.aborted) throw error
    const text = `The ready command did not succeed within ${readyWithinMs / 1000} s (WRENN_BUILD_READY_SEC).`
    throw new AppError('build_failed', text)
  }
}
