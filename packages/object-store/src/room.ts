/** Room for bytes that many share: whoever finds too little waits, in the order of asking. */
export class Room {
  #free: number
  readonly #waiting: { readonly bytes: number; readonly enter: () => void }[] = []

  constructor(readonly bytes: number) {
    this.#free = bytes
  }

  /**
   * More than there is at all counts as all of it.
   * @returns what gives the room back
   * @throws the signal's reason
   */
  async take(wanted: number, signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted()
    const bytes = Math.min(wanted, this.bytes)
    if (this.#waiting.length > 0 || bytes > this.#free) await this.#wait(bytes, signal)
    else this.#free -= bytes
    let isTaken = true
    return {
      [Symbol.dispose]: () => {
        if (isTaken) this.#giveBack(bytes)
        isTaken = false
      },
    }
  }

  async #wait(bytes: number, signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const giveUp = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1)
        this.#enterNext() // who stood behind may need less
        reject(signal.reason)
      }
      const enter = (): void => {
        signal.removeEventListener('abort', giveUp)
        resolve()
      }
      const waiting = { bytes, enter }
      this.#waiting.push(waiting)
      signal.addEventListener('abort', giveUp, { once: true })
    })
  }

  #giveBack(bytes: number): void {
    this.#free += bytes
    this.#enterNext()
  }

  #enterNext(): void {
    for (let [next] = this.#waiting; next !== undefined && next.bytes <= this.#free; [next] = this.#waiting) {
      this.#waiting.shift()
      this.#free -= next.bytes
      next.enter()
    }
  }
}
