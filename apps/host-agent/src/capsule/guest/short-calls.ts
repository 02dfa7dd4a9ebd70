import { setTimeout as delay } from 'node:timers/promises'

/**
 * Calls to guests that are answered at once: input, signals, stat. A guest must not be stopped between taking one and
 * answering it, because its caller could not know whether to repeat it.
 */
export class ShortCalls {
  readonly #running = new Map<string, Set<Promise<unknown>>>()

  /** Makes a call that a pause lets come to its end. */
  async run<T>(capsuleId: string, call: () => Promise<T>): Promise<T> {
    const calls = this.#running.get(capsuleId) ?? new Set()
    this.#running.set(capsuleId, calls)
    const running = call()
    calls.add(running)
    try {
      return await running
    } finally {
      calls.delete(running)
      if (calls.size === 0) this.#running.delete(capsuleId)
    }
  }

  /** Waits until the calls that run now are answered, no longer than `timeoutMs`. */
  async settled(capsuleId: string, timeoutMs: number): Promise<void> {
    const calls = this.#running.get(capsuleId)
    if (calls === undefined) return
    const abort = new AbortController()
    const timeUp = delay(timeoutMs, undefined, { signal: abort.signal }).catch(() => {})
    await Promise.race([Promise.allSettled(calls), timeUp])
    abort.abort()
  }
}
