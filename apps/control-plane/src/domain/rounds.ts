import { setTimeout as delay } from 'node:timers/promises'

/** Work of the background, round after round until it is stopped; a round that fails leaves its work to the next one. */
export class Rounds {
  readonly #round: () => Promise<void>
  readonly #everyMs: number
  readonly #onFailure: (error: unknown) => void
  readonly #abort = new AbortController()
  #done: Promise<void> = Promise.resolve()
  #hurry = new AbortController()

  /** `everyMs` from the end of a round to the next one. A failure after `stop` is nobody's matter. */
  constructor(round: () => Promise<void>, everyMs: number, onFailure: (error: unknown) => void) {
    this.#round = round
    this.#everyMs = everyMs
    this.#onFailure = onFailure
  }

  /** Aborted by `stop`: a long round looks at it. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  start(): void {
    this.#done = this.#repeat()
  }

  /** Has the next round begin now, or as soon as the one that is under way has ended. */
  hurry(): void {
    this.#hurry.abort()
  }

  /** Waits for the round that is under way. */
  async stop(): Promise<void> {
    this.#abort.abort()
    this.#hurry.abort()
    await this.#done
  }

  async #repeat(): Promise<void> {
    const { signal } = this.#abort
    while (!signal.aborted) {
      this.#hurry = new AbortController()
      try {
        await this.#round()
      } catch (error) {
        if (!signal.aborted) this.#onFailure(error)
      }
      await delay(this.#everyMs, undefined, { signal: this.#hurry.signal }).catch(() => {})
    }
  }
}
