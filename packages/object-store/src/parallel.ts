import { setMaxListeners } from 'node:events'

/**
 * Runs `work` for each item, `limit` at a time; items are taken as there is room. The first failure ends the signal that all get, and is
 * thrown when all have ended: nothing goes on behind the caller's back.
 */
export async function forEachParallel<T>(
  items: AsyncIterable<T> | Iterable<T>,
  { limit, signal }: { readonly limit: number; readonly signal: AbortSignal },
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failed = new AbortController()
  const either = AbortSignal.any([signal, failed.signal])
  setMaxListeners(0, either) // each work listens, and Node.js takes more than ten for a leak
  const running = new Set<Promise<void>>()
  const start = (item: T): void => {
    const one = work(item, either)
      .catch((error: unknown) => failed.abort(error))
      .finally(() => running.delete(one))
    running.add(one)
  }
  try {
    for await (const item of items) {
      either.throwIfAborted()
      start(item)
      if (running.size >= limit) await Promise.race(running)
    }
  } catch (error) {
    failed.abort(error)
  }
  await Promise.all(running)
  signal.throwIfAborted()
  failed.signal.throwIfAborted()
}
