import { setTimeout as delay } from 'node:timers/promises'

const INTERVAL_MS = 50

/** Asks `probe` until it gives something other than `undefined`. `what` says in the error what did not come. */
export async function eventually<T>(
  what: string | (() => string),
  probe: () => Promise<T | undefined> | T | undefined,
  timeoutMs = 60_000,
): Promise<T> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const found = await probe()
    if (found !== undefined) return found
    if (performance.now() > deadline) {
      throw new Error(`Waited ${timeoutMs} ms for ${typeof what === 'string' ? what : what()}.`)
    }
    await delay(INTERVAL_MS)
  }
}
