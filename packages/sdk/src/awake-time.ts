import { isAsleep } from '@wrenn/protocol'
import { createError } from './errors.js'
import type { CapsuleState } from './types.js'
import { delay } from './wait.js'

const ASLEEP_POLL_MS = 1_000

/** A deadline that stands still while the capsule sleeps, and how to learn whether it does. */
export interface AwakeTime {
  /** Time in which the capsule was awake, not time on the clock. */
  readonly limitMs: number
  /** Asked each time the limit is over, and every second while the capsule sleeps. A failure counts as `running`. */
  readonly askState: (signal: AbortSignal) => Promise<CapsuleState>
  readonly signal: AbortSignal | undefined
}

/**
 * Gives up on `work` after `limitMs` in which the capsule could do it: a command stands still while its capsule sleeps, and so
 * does its deadline.
 * @throws TimeoutError
 */
export async function withinAwakeTime<T>(
  { limitMs, askState, signal }: AwakeTime,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const over = new AbortController()
  const done = new AbortController()
  const isOver = untilOver({ limitMs, askState, signal: done.signal }).then(
    () => over.abort(createError(`No answer within ${limitMs} ms (requestTimeoutMs).`, { code: 'timeout' })),
    () => {}, // the work was done before
  )
  try {
    return await work(signal ? AbortSignal.any([signal, over.signal]) : over.signal)
  } finally {
    done.abort()
    await isOver
  }
}

async function untilOver({ limitMs, askState, signal }: AwakeTime & { readonly signal: AbortSignal }): Promise<void> {
  for (;;) {
    await delay(limitMs, signal)
    let slept = false
    // Nobody to ask: it may well sleep no more than we can tell.
    while (isAsleep(await askState(signal).catch(() => 'running' as const))) {
      slept = true
      await delay(ASLEEP_POLL_MS, signal)
    }
    if (!slept) return
  }
}
