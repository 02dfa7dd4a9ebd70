/** Events for one slow-or-fast reader. Unbounded: its events are small and few (one per change of a capsule). */
export class EventQueue<T> {
  readonly #waiting: T[] = []
  #wake: (() => void) | undefined

  push(event: T): void {
    this.#waiting.push(event)
    this.#wake?.()
  }

  /** The next event, or `undefined` after `timeoutMs` or when `signal` aborts. */
  async next(timeoutMs: number, signal: AbortSignal): Promise<T | undefined> {
    if (this.#waiting.length === 0 && !signal.aborted) await this.#pause(timeoutMs, signal)
    return this.#waiting.shift()
  }

  #pause(timeoutMs: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', wake)
        this.#wake = undefined
        resolve()
      }
      const timer = setTimeout(wake, timeoutMs)
      signal.addEventListener('abort', wake)
      this.#wake = wake
    })
  }
}
