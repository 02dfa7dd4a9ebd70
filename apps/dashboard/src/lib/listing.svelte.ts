import { type Failure, failureOf } from './failure.js'
import type { Live } from './live.svelte.js'

/** A list that is asked for as a whole, and again when something of its kind happens. */
export class Listing<Item> {
  items = $state.raw<readonly Item[]>([])
  isLoaded = $state(false)
  failure = $state.raw<Failure>()
  readonly #ask: () => Promise<readonly Item[]>
  #turn = 0

  constructor(ask: () => Promise<readonly Item[]>) {
    this.#ask = ask
  }

  /** The answer to a later question wins, in whatever order they come. */
  async load(): Promise<void> {
    this.#turn += 1
    const turn = this.#turn
    try {
      const items = await this.#ask()
      if (turn !== this.#turn) return
      this.items = items
      this.isLoaded = true
      this.failure = undefined
    } catch (error) {
      if (turn === this.#turn) this.failure = failureOf(error)
    }
  }

  /** Loads now and with each event of these kinds. To be given to `$effect`. */
  follow(live: Live, ...prefixes: readonly string[]): () => void {
    void this.load()
    return live.on(({ type }) => {
      if (type === 'relist' || type === 'ready' || prefixes.some((prefix) => type.startsWith(prefix))) void this.load()
    })
  }
}

/** All items of a list that comes in pages. */
export async function allOf<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = []
  for await (const item of items) all.push(item)
  return all
}
