import { AppError } from '@wrenn/base'
import { EventType } from '@wrenn/protocol/guest'
import type { WatchEvent } from './watcher.js'

const MAX_EVENTS = 10_000

/** Events waiting for their reader; bounded, and never incomplete without saying so. */
export class EventQueue {
  #events: WatchEvent[] = []
  #overflowed = false
  #wake: (() => void) | undefined

  /**
   * An event like the one before it is dropped, unless it is a creation. When too many wait, all are dropped, and whoever
   * takes the next is told so.
   */
  push(event: WatchEvent): void {
    const last = this.#events.at(-1)
    if (last !== undefined && event.type !== EventType.CREATE && last.type === event.type && last.path === event.path)
      return
    if (this.#events.length >= MAX_EVENTS) {
      this.#events = []
      this.#overflowed = true
    }
    if (!this.#overflowed) this.#events.push(event)
    this.#wake?.()
  }

  /**
   * What happened since the last call.
   * @throws AppError `limit_exceeded` once when events were lost because nobody took them
   */
  take(): readonly WatchEvent[] {
    if (this.#overflowed) {
      this.#overflowed = false
      throw new AppError('limit_exceeded', `More than ${MAX_EVENTS} events were waiting; list the directory again.`)
    }
    const events = this.#events
    this.#events = []
    return events
  }

  /** Resolves at the next event or wake-up, or after `idleMs`. */
  wait(idleMs: number): Promise<void> {
    if (this.#events.length > 0 || this.#overflowed) return Promise.resolve()
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#wake?.(), idleMs)
      this.#wake = () => {
        clearTimeout(timer)
        this.#wake = undefined
        resolve()
      }
    })
  }

  /** Makes whoever waits look again, as when the watch ends. */
  wake(): void {
    this.#wake?.()
  }
}
