const MAX_DELAY_MS = 5 * 60_000
/** Whoever names no time, or none at all, is not asked again at once. */
const MIN_RATE_MS = 50
/** Those that were told the same time do not all come back in one moment. */
const SPREAD = 0.1

/** How long whoever is sent to rests after so many failures in a row, from a half to all of a time that doubles. */
export function backOffMs(failures: number, firstMs: number, random: () => number = Math.random): number {
  const wholeMs = Math.min(firstMs * 2 ** Math.min(Math.max(failures, 1) - 1, 30), MAX_DELAY_MS)
  return Math.round(wholeMs * (0.5 + random() / 2))
}

/** How long it rests when it has named a time: never less. */
export function rateDelayMs(afterMs: number, random: () => number = Math.random): number {
  return Math.ceil(Math.max(afterMs, MIN_RATE_MS) * (1 + random() * SPREAD))
}
