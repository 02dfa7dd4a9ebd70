/**
 * Inverses of what was acquired so far, run in reverse when disposed. `await using undo = new UndoStack()`, push each
 * inverse right after its step, and call `move()` when everything succeeded: then nothing is undone.
 *
 * Every inverse is tried even when one throws; the errors come out together as an `AggregateError`. An inverse registered
 * after disposal runs at once, so a late acquisition cannot leak.
 */
export class UndoStack implements AsyncDisposable {
  #inverses: (() => unknown)[] = []
  #state: 'open' | 'moved' | 'disposed' = 'open'

  /**
   * Registers how to undo what was just done. After the stack was unwound it runs at once, so that nothing is left behind.
   */
  async defer(inverse: () => unknown): Promise<void> {
    if (this.#state === 'disposed') await inverse()
    else this.#inverses.push(inverse)
  }

  /** Hands the inverses to a new owner: this stack will undo nothing. */
  move(): UndoStack {
    const moved = new UndoStack()
    moved.#inverses = this.#inverses
    this.#inverses = []
    this.#state = 'moved'
    return moved
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state === 'disposed') return
    this.#state = 'disposed'
    const errors: unknown[] = []
    for (const inverse of this.#inverses.splice(0).reverse()) {
      try {
        await inverse()
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, 'Some clean-up steps failed.')
  }
}
