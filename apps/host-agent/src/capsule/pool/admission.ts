/**
 * Lets a few starts run at a time, in the order they asked. Starting a guest is CPU work: more at once than there are cores
 * makes each slower without making all of them faster, until they miss their deadlines together.
 */
export class Admission {
  readonly #limit: number
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Runs `task` when there is a place, in the order of the calls. */
  async run<T>(task: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#limit) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    else this.#running++
    try {
      return await task()
    } finally {
      const next = this.#waiting.shift()
      // The place goes straight to the next in line, so that nobody slips in between.
      if (next === undefined) this.#running--
      else next()
    }
  }
}
