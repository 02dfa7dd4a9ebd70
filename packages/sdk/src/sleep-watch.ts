import { isAsleep } from '@wrenn/protocol'
import type { CapsuleState } from './types.js'
import { delay } from './wait.js'

/** While the capsule is paused its open streams are silent; a server that does not tell is asked after this much silence. */
const QUIET_MS = 5_000
const ASLEEP_POLL_MS = 1_000

/** Notices that a capsule is paused under a session, and that it goes on. */
export class SleepWatch {
  readonly #ask: () => Promise<CapsuleState>
  readonly #tell: (state: 'paused' | 'resumed') => void
  #asleep = false
  /** The server tells of its own accord. */
  #isTold = false
  #heardAt = performance.now()

  constructor(ask: () => Promise<CapsuleState>, tell: (state: 'paused' | 'resumed') => void) {
    this.#ask = ask
    this.#tell = tell
  }

  /** Whether the capsule sleeps; tells when that changed. */
  async check(): Promise<boolean> {
    const state = await this.#ask()
    const asleep = isAsleep(state)
    this.#set(asleep)
    return asleep
  }

  /** The server said so; from now on it need not be asked. */
  told(state: CapsuleState): void {
    this.#isTold = true
    this.#set(isAsleep(state))
  }

  /** The connection on which it told is gone. */
  untold(): void {
    this.#isTold = false
  }

  /** Output came: whatever it was, it is awake. What is told comes in its own order, the last words before a pause after it. */
  heard(): void {
    this.#heardAt = performance.now()
    if (!this.#isTold) this.#set(false)
  }

  /** Resolves when the capsule is not asleep. @returns whether it was */
  async untilAwake(signal: AbortSignal): Promise<boolean> {
    for (let waited = false; ; waited = true) {
      if (!(await this.check())) return waited
      await delay(ASLEEP_POLL_MS, signal)
    }
  }

  /** Looks whenever it was quiet for a while, until aborted. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await delay(this.#asleep ? ASLEEP_POLL_MS : QUIET_MS, signal).catch(() => {}) // aborted: the loop ends
      const isQuiet = this.#asleep || performance.now() - this.#heardAt >= QUIET_MS
      // Not reachable now: a connection that broke is noticed by its user.
      if (isQuiet && !this.#isTold && !signal.aborted) await this.check().catch(() => {})
    }
  }

  #set(asleep: boolean): void {
    if (this.#asleep === asleep) return
    this.#asleep = asleep
    this.#tell(asleep ? 'paused' : 'resumed')
  }
}
