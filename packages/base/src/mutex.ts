import { abortable } from './abortable.js'

/** Runs tasks one after another per key; different keys run side by side. */
export class KeyedMutex {
  readonly #tails = new Map<string, Promise<unknown>>()

  /** Whether somebody runs or waits under the key: if not, who calls `run` at once does not wait. */
  isBusy(key: string): boolean {
    return this.#tails.has(key)
  }

  /**
   * Runs `task` when all that came before it under the same key have ended, however they ended. Who is aborted while it waits has left the line.
   * @throws whatever `task` throws, and the signal's reason while it waits
   */
  async run<T>(key: string, task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve()
    const mine = (signal === undefined ? before : abortable(before, signal)).then(task)
    const tail = Promise.allSettled([before, mine])
    this.#tails.set(key, tail)
    try {
      return await mine
    } finally {
      if (this.#tails.get(key) === tail) this.#tails.delete(key)
    }
  }
}
