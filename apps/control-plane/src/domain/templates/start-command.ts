import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import type { BuildPlan, ProcessDefaults } from '../../store/schema.js'
import type { BuildLog } from './build-log.js'
import type { BuildGuest } from './guest.js'

const LOOK_EVERY_MS = 500
/** What a ready command prints is nobody's matter. */
const silent = { stdout: async () => {}, stderr: async () => {} }

interface StartDeps {
  readonly guest: BuildGuest
  readonly log: BuildLog
  readonly step: string
  readonly readyWithinMs: number
  readonly signal: AbortSignal
}

/**
 * Starts the start command and waits until the ready command succeeds; what was started runs on, and is in the snapshot that follows.
 * @throws AppError `build_failed` when the start command fails first, or it takes too long
 */
export async function startAndWait(
  deps: StartDeps,
  { startCmd, readyCmd }: Pick<BuildPlan, 'startCmd' | 'readyCmd'>,
  state: ProcessDefaults,
): Promise<void> {
  const left = new AbortController()
  const failed = new AbortController()
  const started = startCmd === undefined ? undefined : follow(deps, startCmd, state, { left, failed })
  try {
    await untilReady(deps, readyCmd, state, failed.signal)
  } finally {
    left.abort()
    await started
  }
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
  { guest, log, step, readyWithinMs, signal }: StartDeps,
  readyCmd: string | undefined,
  state: ProcessDefaults,
  failed: AbortSignal,
): Promise<void> {
  if (readyCmd === undefined) {
    // One that fails at once is seen to.
    await delay(LOOK_EVERY_MS, undefined, { signal: AbortSignal.any([signal, failed]) }).catch(() => {})
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
