/** Lets at most so many tasks of each key run at a time; the others wait in the order they came. */
export class Turns {
  readonly #atOnce: number
  readonly #queues = new Map<string, Queue>()

  constructor(atOnce: number) {
    this.#atOnce = atOnce
  }

  /** Who leaves by `signal` before its turn has none. @throws what the task throws; the signal's reason */
  async take<T>(key: string, task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    const queue = this.#queues.get(key) ?? { running: 0, waiting: new Set() }
    this.#queues.set(key, queue)
    if (queue.running >= this.#atOnce) await turnIn(queue, signal)
    else queue.running++
    try {
      signal?.throwIfAborted()
      return await task()
    } finally {
      const [next] = queue.waiting
      if (next !== undefined) {
        queue.waiting.delete(next)
        next()
      } else if (--queue.running === 0) this.#queues.delete(key)
    }
  }
}

interface Queue {
  running: number
  /** In the order they came. */
  readonly waiting: Set<() => void>
}

function turnIn({ waiting }: Queue, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const leave = (): void => {
      waiting.delete(begin)
      reject(signal?.reason)
    }
    const begin = (): void => {
      signal?.removeEventListener('abort', leave)
      resolve()
    }
    waiting.add(begin)
    signal?.addEventListener('abort', leave, { once: true })
  })
}
