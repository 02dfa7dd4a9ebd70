import { WrennError } from './errors.js'

/** A token lives longer than this by far, so one that is younger needs no new one before a use that cannot be repeated. */
const FRESH_MS = 5 * 60_000

interface PageSessionOptions {
  /** Asks for the next cookies. */
  readonly refresh: () => Promise<unknown>
  /** Called when there is no session any more. */
  readonly onSignedOut: () => void
}

/**
 * The session of a page, whose tokens are in cookies that no script can read: all that is known of them is when the server last gave
 * some. However many calls find that theirs has expired, one refresh is made.
 */
export class PageSession {
  readonly #options: PageSessionOptions
  #refreshing: Promise<void> | undefined
  #renewedAt = Number.NEGATIVE_INFINITY

  constructor(options: PageSessionOptions) {
    this.#options = options
  }

  /** The server has given new cookies. */
  renewed(): void {
    // Of the wall clock, which goes on while a machine sleeps.
    this.#renewedAt = Date.now()
  }

  /** Before what cannot be done again: a stream that is sent, a WebSocket. @throws as `renew` */
  async makeFresh(): Promise<void> {
    if (Date.now() - this.#renewedAt > FRESH_MS) await this.#refresh()
  }

  /** After a request, begun at `askedAt`, was refused. @throws WrennError when the session is over, or nobody answers */
  async renew(askedAt: number): Promise<void> {
    if (this.#renewedAt < askedAt) await this.#refresh()
  }

  async #refresh(): Promise<void> {
    this.#refreshing ??= this.#ask().finally(() => {
      this.#refreshing = undefined
    })
    await this.#refreshing
  }

  async #ask(): Promise<void> {
    try {
      await this.#options.refresh()
      this.renewed()
    } catch (error) {
      if (error instanceof WrennError && [401, 403].includes(error.status)) this.#options.onSignedOut()
      throw error
    }
  }
}
