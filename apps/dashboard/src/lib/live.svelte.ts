import type { Wrenn, WrennEvent } from '@wrenn/sdk'
import { type Failure, failureOf, isAbort } from './failure.js'

export type LiveState = 'connecting' | 'live' | 'lost'

/** What a page needs of an event; `relist` and `ready` are about everything. */
export type PageEvent = Pick<WrennEvent, 'type' | 'resourceId' | 'data'>
type Listener = (event: PageEvent) => void

const AGAIN_AFTER_MS = 10_000
/** Browsers give all tabs together six connections to a server: one that nobody looks at gives its own back. */
const HIDDEN_FOR_MS = 20_000

/** The page's one stream of events. It comes back by itself; what was missed then is told as `relist` or `ready`. */
export class Live {
  state = $state<LiveState>('connecting')
  /** Why there is no stream, where trying again alone does not help. */
  failure = $state.raw<Failure>()
  readonly #wrenn: Wrenn
  readonly #listeners = new Set<Listener>()

  constructor(wrenn: Wrenn) {
    this.#wrenn = wrenn
  }

  /** @returns what ends the listening */
  on(listener: Listener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Follows until the signal aborts, while the page is looked at. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const hidden = hiddenSignal(signal)
      try {
        await this.#hear(AbortSignal.any([signal, hidden]))
      } catch (error) {
        if (!signal.aborted && !hidden.aborted && !isAbort(error)) this.failure = failureOf(error)
      }
      if (signal.aborted) return
      this.state = hidden.aborted ? 'connecting' : 'lost'
      await untilWanted(signal, hidden.aborted ? undefined : AGAIN_AFTER_MS)
      // Without a stream nobody knows what happened meanwhile.
      if (!signal.aborted && !hidden.aborted) this.#tell({ type: 'relist', resourceId: '', data: {} })
    }
  }

  async #hear(signal: AbortSignal): Promise<void> {
    const onConnection = (state: 'lost' | 'restored'): void => {
      this.state = state === 'lost' ? 'lost' : 'live'
      // It may have been ended because the session works in another team now, by a switch in another tab.
      if (state === 'restored') this.#tell({ type: 'relist', resourceId: '', data: {} })
    }
    for await (const event of this.#wrenn.events.follow({ signal, onConnection })) {
      this.state = 'live'
      this.failure = undefined
      this.#tell(event)
    }
  }

  #tell(event: PageEvent): void {
    for (const listener of this.#listeners) listener(event)
  }
}

/** Aborts when the page has been out of sight for a while. */
function hiddenSignal(signal: AbortSignal): AbortSignal {
  const hidden = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  const look = (): void => {
    clearTimeout(timer)
    if (document.hidden) timer = setTimeout(() => hidden.abort(), HIDDEN_FOR_MS)
  }
  const options = { signal: AbortSignal.any([signal, hidden.signal]) }
  document.addEventListener('visibilitychange', look, options)
  options.signal.addEventListener('abort', () => clearTimeout(timer), { once: true })
  look()
  return hidden.signal
}

/** When the person comes back to the page, or after some time, where one is given. */
function untilWanted(signal: AbortSignal, ms: number | undefined): Promise<void> {
  return new Promise((resolve) => {
    const wanted = new AbortController()
    const done = (): void => {
      clearTimeout(timer)
      wanted.abort()
      resolve()
    }
    const timer = ms === undefined ? undefined : setTimeout(done, ms)
    const options = { signal: wanted.signal }
    window.addEventListener('focus', done, options)
    document.addEventListener('visibilitychange', () => document.hidden || done(), options)
    signal.addEventListener('abort', done, options)
    // It came back while the stream was being ended.
    if (ms === undefined && !document.hidden) done()
  })
}
