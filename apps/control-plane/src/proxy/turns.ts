/** Lets at most so many tasks of each key run at a time; the others wait in the order they came. */
export class Turns {
  readonly #atOnce: number
  readonly #queues = new Map<string, { running: number; readonly waiting: (() => void)[] }>()

  constructor(atOnce: number) {
    this.#atOnce = atOnce
  }

  async take<T>(key: string, task: () => Promise<T>): Promise<T> {
    const queue = this.#queues.get(key) ?? { running: 0, waiting: [] }
    this.#queues.set(key, queue)
    if (queue.running >= this.#atOnce) await new Promise<void>((resolve) => queue.waiting.push(resolve))
    else queue.running++
    try {
      return await task()
    } finally {
      const next = queue.waiting.shift()
      if (next !== undefined) next()
      else if (--queue.running === 0) this.#queues.delete(key)
    }
  }
}
