import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from './errors.js'

/** How long and how often a condition is asked for. */
export interface WaitOptions {
  /** The last probe may begin this late; it is not cut short. */
  readonly timeoutMs: number
  /** @default 25 */
  readonly intervalMs?: number
  /** Ends the wait with its reason. */
  readonly signal?: AbortSignal
  /** What is waited for, for the error's message: "the guest agent to answer". */
  readonly what: string
  /** Error code when the time is over. @default 'timeout' */
  readonly code?: string
}

/**
 * Asks `probe` until it gives something other than `undefined`, and returns that.
 * @throws AppError `timeout` (or `options.code`) after `timeoutMs`; whatever `probe` throws.
 */
export async function waitFor<T>(
  probe: () => Promise<T | undefined> | T | undefined,
  options: WaitOptions,
): Promise<T> {
  const deadline = performance.now() + options.timeoutMs
  for (;;) {
    options.signal?.throwIfAborted()
    const found = await probe()
    if (found !== undefined) return found
    if (performance.now() >= deadline) {
      throw new AppError(options.code ?? 'timeout', `Waited ${options.timeoutMs} ms for ${options.what}.`)
    }
    await delay(options.intervalMs ?? 25, undefined, options.signal ? { signal: options.signal } : {})
  }
}
