import type { OutputChunk } from './output-chunk.js'
import type { OutputLog } from './output-log.js'

/** A reader this near to the end has caught up. */
const LIVE_LAG_BYTES = 256 * 1024

/** How a process ended, in the fields of the wire's end event. */
export interface SessionEnd {
  /** -1 where it did not exit by itself, as clients of this wire know it. */
  readonly exitCode: number
  readonly exited: boolean
  /** For people: `exit status 1`, `signal: killed`. */
  readonly status: string
  readonly error: string | undefined
  readonly signal: number | undefined
  readonly timedOut: boolean
  readonly oomKilled: boolean
}

/** What a reader needs of the session it reads. */
export interface FollowedSession {
  readonly log: OutputLog
  /** Set once all output is in the log. */
  readonly end: SessionEnd | undefined
  unfollow(follower: Follower): void
}

type FollowerItem =
  | { readonly type: 'chunk'; readonly chunk: OutputChunk }
  | { readonly type: 'lost'; readonly from: number; readonly to: number }
  | { readonly type: 'end'; readonly end: SessionEnd; readonly offset: number }
  | { readonly type: 'idle' }

/**
 * One reader of a session's output: every byte from `offset` on once, in order, then the end. An offset that has not been
 * produced yet is waited for: a reader never gets a byte before its offset.
 */
export class Follower {
  readonly #session: FollowedSession
  readonly #onProgress: () => void
  #offset: number
  #block: OutputChunk[] = []
  #wake: (() => void) | undefined
  #isLive = false

  constructor(session: FollowedSession, offset: number, onProgress: () => void) {
    this.#session = session
    this.#offset = offset
    this.#onProgress = onProgress
  }

  /** Where the next byte comes from. */
  get offset(): number {
    return this.#offset
  }

  /** What is next; `idle` when nothing came for `idleMs`. */
  async next(idleMs: number): Promise<FollowerItem> {
    for (;;) {
      const item = this.#fromMemory() ?? (this.#isBehind() ? await this.#fromDisk() : this.#atEnd())
      if (item !== undefined) return item
      if (!(await this.#woken(idleMs))) return { type: 'idle' }
    }
  }

  /** How many bytes it has yet to read. */
  get lag(): number {
    return this.#session.log.end - this.#offset
  }

  /** A reader that replays the past does not hold the process back until it has caught up once. */
  get isLive(): boolean {
    if (this.lag < LIVE_LAG_BYTES) this.#isLive = true
    return this.#isLive
  }

  wake(): void {
    this.#wake?.()
  }

  /** Ends the reading; a `next` that waits resolves. */
  close(): void {
    this.#session.unfollow(this)
    this.wake()
  }

  #isBehind(): boolean {
    return this.#offset < this.#session.log.end
  }

  #fromMemory(): FollowerItem | undefined {
    const chunk = this.#block.shift() ?? this.#session.log.readMemory(this.#offset)
    return chunk === undefined ? undefined : this.#advance(chunk)
  }

  async #fromDisk(): Promise<FollowerItem> {
    const { log } = this.#session
    if (this.#offset >= log.start) {
      const [first, ...rest] = await log.readDisk(this.#offset)
      if (first !== undefined) {
        this.#block = rest
        return this.#advance(first)
      }
    }
    const kept = log.readMemory(this.#offset)
    return kept === undefined ? this.#skipLost() : this.#advance(kept)
  }

  #skipLost(): FollowerItem {
    const from = this.#offset
    this.#offset = this.#session.log.nextKept(from)
    this.#onProgress()
    return { type: 'lost', from, to: this.#offset }
  }

  #advance(chunk: OutputChunk): FollowerItem {
    this.#offset = chunk.offset + chunk.data.length
    this.#onProgress()
    return { type: 'chunk', chunk }
  }

  #atEnd(): FollowerItem | undefined {
    const { end } = this.#session
    return end === undefined ? undefined : { type: 'end', end, offset: this.#session.log.end }
  }

  /** False when `idleMs` passed first. */
  #woken(idleMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#settle(resolve, false), idleMs)
      this.#wake = () => {
        clearTimeout(timer)
        this.#settle(resolve, true)
      }
    })
  }

  #settle(resolve: (woken: boolean) => void, woken: boolean): void {
    this.#wake = undefined
    resolve(woken)
  }
}
