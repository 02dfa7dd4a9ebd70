/** A few letters would hide more than a secret. */
const MIN_LENGTH = 4
/** Longer entries are looked for by parts of this length, so that what waits for the rest of one stays short. */
const MAX_PIECE = 64
const HIDDEN = '***'

/** The lines of a secret that a log must not show. */
export function maskedLines(value: string): string[] {
  const lines = value.split('\n').map((line) => line.trim())
  return [...new Set(lines)].filter(({ length }) => length >= MIN_LENGTH)
}

/** What is not to be seen of secrets, for all streams of a step. */
export class SecretMask {
  readonly #pieces: ReadonlySet<string>
  /** By how a piece begins, the lengths of those that do so, longest first. */
  readonly #lengths = new Map<string, number[]>()
  /** How far the longest piece reaches. */
  readonly reach: number

  /** @param values Secrets, of any number of lines. */
  constructor(values: readonly string[] = []) {
    this.#pieces = new Set(values.flatMap(maskedLines).flatMap(piecesOf))
    const longestFirst = [...this.#pieces].sort((a, b) => b.length - a.length)
    for (const piece of longestFirst) {
      const start = piece.slice(0, MIN_LENGTH)
      const lengths = this.#lengths.get(start) ?? []
      if (lengths.at(-1) !== piece.length) lengths.push(piece.length)
      this.#lengths.set(start, lengths)
    }
    this.reach = longestFirst[0]?.length ?? 0
  }

  /** How much of a text, from `at` on, is to be hidden. */
  lengthAt(text: string, at: number): number {
    const lengths = this.#lengths.get(text.slice(at, at + MIN_LENGTH)) ?? []
    return lengths.find((length) => this.#pieces.has(text.slice(at, at + length))) ?? 0
  }

  /** A whole text. */
  hide(text: string): string {
    const stream = new MaskedStream(this)
    return stream.write(text) + stream.end()
  }
}

/** A text that comes in parts, without what is hidden. What may be the beginning of something hidden waits for its rest. */
export class MaskedStream {
  readonly #mask: SecretMask
  #rest = ''
  /** How much of the rest is known to be hidden. */
  #covered = 0
  /** The character before the rest is. */
  #isHidden = false

  constructor(mask: SecretMask) {
    this.#mask = mask
  }

  /** @returns what can be told by now */
  write(text: string): string {
    if (this.#mask.reach === 0) return text
    this.#rest += text
    // Nothing that is hidden goes across the end of a line.
    return this.#take(Math.max(this.#rest.lastIndexOf('\n') + 1, this.#rest.length - this.#mask.reach + 1))
  }

  /** What is left. */
  end(): string {
    return this.#take(this.#rest.length)
  }

  #take(count: number): string {
    let shown = ''
    for (let at = 0; at < count; at++) {
      this.#covered = Math.max(this.#covered, at + this.#mask.lengthAt(this.#rest, at))
      if (at >= this.#covered) shown += this.#rest[at]
      else if (!this.#isHidden) shown += HIDDEN
      this.#isHidden = at < this.#covered
    }
    if (count <= 0) return shown
    this.#rest = this.#rest.slice(count)
    this.#covered = Math.max(0, this.#covered - count)
    return shown
  }
}

/** The last one overlaps the one before, so that none is short. */
function piecesOf(line: string): string[] {
  const pieces: string[] = []
  for (let at = 0; at + MAX_PIECE < line.length; at += MAX_PIECE) pieces.push(line.slice(at, at + MAX_PIECE))
  return [...pieces, line.slice(-MAX_PIECE)]
}
