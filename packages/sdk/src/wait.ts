/** Resolves after `ms`, rejects with the signal's reason when that aborts first. */
export function delay(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const onAbort = (): void => {
      clearTimeout(timer)
      reject(signal?.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

const FIRST_BACKOFF_MS = 200
const MAX_BACKOFF_MS = 5000

/** Exponential, with up to half of it taken off at random so that clients do not come back in step. */
export function backoffMs(attempt: number): number {
  const full = Math.min(FIRST_BACKOFF_MS * 2 ** attempt, MAX_BACKOFF_MS)
  return full * (1 - Math.random() / 2)
}

/** Up, so that a short time never becomes 0, which means never. */
export function wholeSeconds(ms: number): number {
  return Math.ceil(ms / 1000)
}
