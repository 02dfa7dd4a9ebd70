const ENTER = new Set([0x0d, 0x0a])
const TILDE = 0x7e
const DOT = 0x2e

/**
 * Finds `Enter ~ .` in what is typed, as ssh does: rare enough that programs keep every other key. A tilde after Enter is
 * held back until the next key tells what it was; `~~` sends one.
 */
export class EscapeFilter {
  #afterEnter = true
  #heldTilde = false

  /** @returns what to pass on, and whether to detach. */
  feed(typed: Uint8Array): { pass: Uint8Array; detach: boolean } {
    const pass: number[] = []
    for (const byte of typed) {
      if (this.#heldTilde) {
        this.#heldTilde = false
        if (byte === DOT) return { pass: Uint8Array.from(pass), detach: true }
        pass.push(TILDE)
        if (byte !== TILDE) pass.push(byte)
      } else if (byte === TILDE && this.#afterEnter) {
        this.#heldTilde = true
      } else pass.push(byte)
      this.#afterEnter = ENTER.has(byte)
    }
    return { pass: Uint8Array.from(pass), detach: false }
  }
}
