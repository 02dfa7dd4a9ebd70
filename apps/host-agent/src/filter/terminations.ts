import { type PlaceLimits, Places } from './places.js'

/** TLS takes ten times the memory of a connection that is only joined. */
const LIMITS: PlaceLimits = { all: 1024, perSource: 32 }
/** New ones of a source, each a signature and perhaps a certificate; those above begin later. */
const PER_SECOND = 16
const AT_ONCE = 32

/** A connection of which TLS is to end here. */
interface Occupant {
  breakOff(): void
}

/** Who has TLS ended here, of how many connections, and how soon the next. */
export class Terminations<T extends Occupant> {
  readonly #places: Places<T>
  /** When each source's next one is due, if all begin in turn. */
  readonly #due = new Map<string, number>()

  constructor(limits: PlaceLimits = LIMITS) {
    this.#places = new Places(limits)
  }

  /** @returns how long it has to wait, and has its place meanwhile; nothing when there is no place */
  take(source: string, occupant: T, now = performance.now()): number | undefined {
    if (!this.#places.makeRoom(source)) return undefined
    this.#places.take(source, occupant)
    const intervalMs = 1000 / PER_SECOND
    const due = Math.max(this.#due.get(source) ?? 0, now - (AT_ONCE - 1) * intervalMs)
    this.#due.set(source, due + intervalMs)
    return Math.max(due - now, 0)
  }

  leave(source: string, occupant: T): void {
    this.#places.leave(source, occupant)
  }

  forget(source: string): void {
    this.#due.delete(source)
  }
}
