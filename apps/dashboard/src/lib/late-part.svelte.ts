/** A component whose scripts come when it is first wanted. */
export class LatePart<Part> {
  /** `undefined` until it has come. */
  part = $state.raw<Part>()
  readonly #load: () => Promise<{ readonly default: Part }>
  readonly #onFailure: (error: unknown) => void

  /** A part that did not come is asked for again when it is wanted again. */
  constructor(load: () => Promise<{ readonly default: Part }>, onFailure: (error: unknown) => void) {
    this.#load = load
    this.#onFailure = onFailure
  }

  async want(): Promise<void> {
    if (this.part !== undefined) return
    try {
      this.part = (await this.#load()).default
    } catch (error) {
      this.#onFailure(error)
    }
  }
}
