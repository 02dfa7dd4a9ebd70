import { type Failure, failureOf } from './failure.js'

const PAGE = 50

/** A long list, newest first, of which older ones are shown when somebody asks for them. */
export class Paged<Item> {
  items = $state.raw<readonly Item[]>([])
  failure = $state.raw<Failure>()
  /** Not while it is only looked at again. */
  isLoading = $state(false)
  /** There are no older ones. */
  isWhole = $state(false)
  #source: AsyncGenerator<Item> | undefined

  /** Shows the first ones of a list in place of what is shown. */
  async begin(list: AsyncGenerator<Item>): Promise<void> {
    this.isLoading = true
    await this.#read(list, [], [])
  }

  /** The same for a list that is looked at already: what is shown stays where that fails, and where somebody has gone back in it. */
  async refresh(list: () => AsyncGenerator<Item>): Promise<void> {
    if (!this.isLoading && this.items.length <= PAGE) await this.#read(list(), [], this.items)
  }

  /** Shows the next ones too. */
  async more(): Promise<void> {
    if (this.#source === undefined) return
    this.isLoading = true
    await this.#read(this.#source, this.items, this.items)
  }

  /** The next ones, unless another list was begun meanwhile. `otherwise` is shown where there are none for a failure. */
  async #read(from: AsyncGenerator<Item>, before: readonly Item[], otherwise: readonly Item[]): Promise<void> {
    const shown = this.#source
    this.#source = from
    const found: Item[] = []
    let isEnd = false
    let failure: Failure | undefined
    try {
      while (found.length < PAGE && !isEnd) {
        const { value, done } = await from.next()
        if (done) isEnd = true
        else found.push(value)
      }
    } catch (error) {
      failure = failureOf(error)
    }
    if (this.#source !== from) return
    this.failure = failure
    this.isLoading = false
    if (failure !== undefined && found.length === 0) {
      this.items = otherwise
      // What is shown goes on from where it was read from.
      if (otherwise.length > 0) this.#source = shown
    } else {
      this.items = [...before, ...found]
      this.isWhole = isEnd
    }
  }
}
