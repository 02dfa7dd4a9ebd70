import { setMaxListeners } from 'node:events'
import { AppError } from '@wrenn/base'

/** How long a guest may give no sign before a call to it is given up. `patienceOf` says why each is what it is. */
export interface Patience {
  /** For a call without a deadline of its own. */
  readonly silenceMs: number
  /** For a command that should have ended by its own timeout, counted from then on. */
  readonly overdueMs: number
  /** From when on a guest that says nothing is asked whether it is there, and how often. */
  readonly probeAfterMs: number
  readonly probeEveryMs: number
  /** A stream carries something at least this often. */
  readonly keepaliveMs: number
  /** A stream that carries nothing for so long, from a guest that answers otherwise, has lost its connection. */
  readonly lineMs: number
  /** For what a guest that answers otherwise should have done: start a command, or end one whose timeout has passed. */
  readonly stuckMs: number
}

/** An emulated guest whose host is forty times overcommitted still answers a probe within some ten seconds. */
const DEFAULT_SILENCE_MS = 30_000
/** With one tick and the way back it makes the 5 s within which a command's answer follows its timeout. */
const OVERDUE_MS = 4_000
/** Costs an idle guest nothing that can be measured, and keeps the side probe quiet while a guest is well. */
const KEEPALIVE_MS = 8_000
const PROBE_EVERY_MS = 2_000
const TICK_MS = 250
/** A tick this late says that this process stood still itself, not that the guest was silent. */
const LATE_TICK_MS = 2_000

/** The bounds that follow from `silenceMs` (`WRENN_GUEST_SILENCE_SEC`). @default 30 s */
export function patienceOf(silenceMs: number = DEFAULT_SILENCE_MS): Patience {
  return {
    silenceMs,
    overdueMs: Math.min(OVERDUE_MS, silenceMs),
    // After the next keepalive, but early enough for several probes.
    probeAfterMs: Math.min(KEEPALIVE_MS + PROBE_EVERY_MS, silenceMs / 3),
    probeEveryMs: Math.min(PROBE_EVERY_MS, silenceMs / 10),
    keepaliveMs: KEEPALIVE_MS,
    lineMs: 2 * KEEPALIVE_MS,
    stuckMs: 2 * silenceMs,
  }
}

/** What a call that is watched over may expect of its guest. */
export interface WatchOptions {
  /** When the command ends by its own timeout, on the clock of `performance.now()`. */
  readonly dueAtMs?: number | undefined
  /** For a caller who waits less long than others. @default `Patience.silenceMs` */
  readonly silenceMs?: number | undefined
}

/** Why a stream's connection counts as lost although its guest answers: it can be opened again at its offset. */
export class LineLost extends Error {
  override readonly name = 'LineLost'
}

/**
 * Knows whether a guest gives any sign of itself, and ends the calls that wait for one that does not. Silence of one call is
 * no such thing: a command may say nothing for hours. Signs are the bytes of any call, keepalives of streams, and the answer to a
 * probe, which is made only while somebody waits and nothing else is heard.
 */
export class Pulse {
  readonly patience: Patience
  readonly #probe: (signal: AbortSignal) => Promise<boolean>
  readonly #watches = new Set<Watch>()
  #heardAtMs = Number.NEGATIVE_INFINITY
  #probedAtMs = Number.NEGATIVE_INFINITY
  #probes: AbortController | undefined
  #ticker: NodeJS.Timeout | undefined
  #tickedAtMs = 0
  /** Time in which the guest was not to answer: it was stopped by us, or this process stood still. */
  #skippedMs = 0
  #holds = 0

  /** `probe` asks the guest for a sign on a connection of its own; it resolves to false when the guest cannot be asked. */
  constructor(patience: Patience, probe: (signal: AbortSignal) => Promise<boolean>) {
    this.patience = patience
    this.#probe = probe
  }

  /** Makes a call and ends it when the guest gives no sign. @throws AppError `guest_unreachable`, or what `ask` throws */
  async guard<T>(ask: (signal: AbortSignal) => Promise<T>, options: WatchOptions = {}): Promise<T> {
    using watch = this.watch(options)
    watch.waits()
    try {
      const answer = await Promise.race([ask(watch.signal), watch.failed])
      watch.got()
      return answer
    } catch (error) {
      throw watch.failure ?? error
    }
  }

  /** Begins to watch over a call; `lineMs` where it is a stream. Whoever makes the call disposes of the watch. */
  watch(options: WatchOptions & { readonly lineMs?: number } = {}): Watch {
    const watch = new Watch(this, options, () => this.#forget(watch))
    this.#watches.add(watch)
    if (this.#ticker === undefined) {
      this.#tickedAtMs = performance.now()
      this.#ticker = setInterval(() => this.#tick(), TICK_MS).unref()
    }
    return watch
  }

  /** The guest gave a sign. */
  heard(): void {
    this.#heardAtMs = this.nowMs
  }

  /** Until it is disposed of, the guest is stopped by us and its silence does not count. */
  hold(): Disposable {
    this.#holds++
    return {
      [Symbol.dispose]: () => {
        if (this.#ticker !== undefined) this.#skipTo(performance.now())
        this.#holds--
      },
    }
  }

  get heardAtMs(): number {
    return this.#heardAtMs
  }

  /** Runs while the guest could have answered. */
  get nowMs(): number {
    return performance.now() - this.#skippedMs
  }

  #forget(watch: Watch): void {
    this.#watches.delete(watch)
    if (this.#watches.size > 0) return
    clearInterval(this.#ticker)
    this.#ticker = undefined
    this.#probes?.abort()
    this.#probes = undefined
  }

  #tick(): void {
    const now = performance.now()
    if (this.#holds > 0 || now - this.#tickedAtMs > LATE_TICK_MS) this.#skipTo(now)
    this.#tickedAtMs = now
    let isAskedFor = false
    for (const watch of [...this.#watches]) isAskedFor = watch.look() || isAskedFor
    if (isAskedFor && this.nowMs - this.#probedAtMs >= this.patience.probeEveryMs) this.#ask()
  }

  #skipTo(now: number): void {
    this.#skippedMs += now - this.#tickedAtMs
    this.#tickedAtMs = now
  }

  /** A slow guest may answer an early probe after later ones were sent: each is left until nobody waits any more. */
  #ask(): void {
    this.#probedAtMs = this.nowMs
    this.#probes ??= endOfMany()
    void this.#probe(this.#probes.signal).then(
      (answered) => {
        if (answered) this.heard()
      },
      () => {}, // no sign
    )
  }
}

/** One call under watch. `waits` and `got` tell when the guest owes something: a caller that does not read owes it itself. */
export class Watch implements Disposable {
  readonly #pulse: Pulse
  readonly #options: WatchOptions
  readonly #onDispose: () => void
  readonly #abort = new AbortController()
  #lineMs: number | undefined
  #waitingSinceMs: number | undefined
  #lineHeardAtMs: number
  #newsAtMs: number
  #isNews = true

  constructor(pulse: Pulse, options: WatchOptions & { readonly lineMs?: number }, onDispose: () => void) {
    this.#pulse = pulse
    this.#options = options
    this.#lineMs = options.lineMs
    this.#onDispose = onDispose
    this.#lineHeardAtMs = pulse.nowMs
    this.#newsAtMs = pulse.nowMs
  }

  /** Ends when the call is given up. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /** Why the call was given up: an `AppError`, or `LineLost`. */
  get failure(): unknown {
    return this.#abort.signal.aborted ? this.#abort.signal.reason : undefined
  }

  /** Rejects when the call is given up, for what does not listen to `signal`. */
  get failed(): Promise<never> {
    return new Promise((_, reject) => {
      this.signal.addEventListener('abort', () => reject(this.failure), { once: true })
    })
  }

  /** From now on the guest owes something. */
  waits(): void {
    const now = this.#pulse.nowMs
    this.#waitingSinceMs = now
    // Until now its reader had enough to do with what came before.
    if (this.#isNews) this.#newsAtMs = now
  }

  /** Something came. A keepalive is no news. */
  got(isNews = true): void {
    this.#pulse.heard()
    const now = this.#pulse.nowMs
    this.#waitingSinceMs = undefined
    this.#lineHeardAtMs = now
    this.#isNews = isNews
    // A start may take its time; what runs is heard regularly.
    if (this.#lineMs !== undefined) this.#lineMs = this.#pulse.patience.lineMs
  }

  /** Gives the call up when it is time. @returns whether a sign of the guest is wanted */
  look(): boolean {
    if (this.#waitingSinceMs === undefined || this.signal.aborted) return false
    const { patience, nowMs, heardAtMs } = this.#pulse
    const silentMs = nowMs - Math.max(heardAtMs, this.#waitingSinceMs)
    const quietMs = nowMs - Math.max(this.#lineHeardAtMs, this.#waitingSinceMs)
    const overdueMs = performance.now() - (this.#options.dueAtMs ?? Number.POSITIVE_INFINITY)
    const failure = this.#failureAfter(silentMs, quietMs, overdueMs)
    if (failure !== undefined) this.#abort.abort(failure)
    if (overdueMs > 0) return silentMs >= patience.probeEveryMs / 2
    const wantedAfterMs = Math.min(patience.probeAfterMs, (this.#options.silenceMs ?? patience.silenceMs) / 3)
    return silentMs >= wantedAfterMs || (this.#lineMs !== undefined && quietMs >= wantedAfterMs)
  }

  [Symbol.dispose](): void {
    this.#onDispose()
  }

  #failureAfter(silentMs: number, quietMs: number, overdueMs: number): unknown {
    const { patience, nowMs } = this.#pulse
    const silenceMs = Math.min(this.#options.silenceMs ?? patience.silenceMs, patience.silenceMs)
    if (overdueMs >= patience.overdueMs && silentMs >= patience.overdueMs) return unreachableAfterTimeout(silentMs)
    if (silentMs >= silenceMs) return unreachable(silentMs)
    const answersElsewhere = silentMs < patience.probeAfterMs
    if (this.#lineMs !== undefined && quietMs >= this.#lineMs && answersElsewhere)
      return new LineLost('The line is lost.')
    const isStuck = overdueMs >= patience.stuckMs && nowMs - this.#newsAtMs >= patience.stuckMs
    return isStuck ? stuck(patience.stuckMs) : undefined
  }
}

/** Ends as many calls as there are; Node would take more than ten for a leak. */
export function endOfMany(): AbortController {
  const abort = new AbortController()
  setMaxListeners(0, abort.signal)
  return abort
}

const seconds = (ms: number): string => `${Math.round(ms / 1000)} s`

/** @returns `guest_unreachable`, with the knob that bounds the wait */
export function unreachable(silentMs: number, cause?: unknown): AppError {
  const message = `The guest cannot be reached: it gave no sign for ${seconds(silentMs)}. The host agent's WRENN_GUEST_SILENCE_SEC says how long a call waits for one. What was asked may still have been done.`
  return new AppError('guest_unreachable', message, { cause })
}

function unreachableAfterTimeout(silentMs: number): AppError {
  const message = `The guest cannot be reached: the command's timeout_sec has passed, and the guest gave no sign for ${seconds(silentMs)}. The command may still run.`
  return new AppError('guest_unreachable', message)
}

function stuck(ms: number): AppError {
  const message = `The guest answers, but had not ended the command ${seconds(ms)} after its timeout_sec.`
  return new AppError('timeout', message)
}
