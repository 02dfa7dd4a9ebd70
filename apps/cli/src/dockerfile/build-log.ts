import type { BuildLine } from '@wrenn/sdk'
import { type Output, printable } from '../output.js'

/** Shows a build's log line by line. Headings of steps stand out; below them is what commands print. */
export class BuildLog {
  readonly #output: Output
  #step: string | undefined

  constructor(output: Output) {
    this.#output = output
  }

  show({ at, level, step, message }: BuildLine): void {
    if (this.#output.json) {
      this.#output.result({ at, level, step, message }, () => '')
      return
    }
    // By the platform's word alone, since a command may print what looks like a heading: it begins each step, and
    // `base` runs none.
    const isHeading = step === 'base' || step !== this.#step
    this.#step = step
    const shown = printable(message)
    this.#output.note(isHeading ? this.#output.heading(shown) : `  ${shown}`)
  }
}
