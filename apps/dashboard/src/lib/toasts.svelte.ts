import { type Failure, failureOf } from './failure.js'

/** A message that goes away by itself; a failure, and what nobody on this page has done, stays until it is closed. */
export interface Toast {
  readonly id: number
  readonly text: string
  readonly failure: Failure | undefined
}

const SHOWN_MS = 4_000
const MAX_SHOWN = 5

/** What just happened, in a corner of the page. */
export class Toasts {
  list = $state.raw<readonly Toast[]>([])
  #nextId = 1

  tell(text: string): void {
    const id = this.#add({ text, failure: undefined })
    setTimeout(() => this.close(id), SHOWN_MS)
  }

  /** What others have done, which nobody may be looking at just now. */
  keep(text: string): void {
    this.#add({ text, failure: undefined })
  }

  /** @param what could not be done, such as `Pausing box` */
  fail(what: string, error: unknown): void {
    this.#add({ text: `${what} failed`, failure: failureOf(error) })
  }

  close(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id)
  }

  #add(toast: Omit<Toast, 'id'>): number {
    const id = this.#nextId++
    this.list = [...this.list, { ...toast, id }].slice(-MAX_SHOWN)
    return id
  }
}
