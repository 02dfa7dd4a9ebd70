import { randomName } from './bytes.js'
import { createError, TimeoutError } from './errors.js'
import type { CallOptions, Transport } from './transport.js'
import { delay } from './wait.js'

const LIFECYCLE_TIMEOUT_MS = 120_000
/** One answer waits this long at most; then we ask again. Proxies in between like short answers. */
const ANSWER_WAIT_SEC = 20
/** An answer may come this much after the wait that it was asked to make. */
const ANSWER_GRACE_MS = 15_000
const POLL_MS = 250
/** Under way; the answer shows as much as there is of it. */
const ACCEPTED = 202

/** How long a call that moves a capsule is waited for. Giving up leaves the work under way. */
export interface LifecycleOptions extends CallOptions {
  /**
   * Longest wait for the end; what was asked for goes on after it. `requestTimeoutMs` bounds each answer on the way.
   * @default 120_000
   */
  readonly timeoutMs?: number
}

/** How `resume` and `rollback` start a capsule. */
export interface ResumeOptions extends LifecycleOptions {
  /** `disk`: from its files alone; memory and processes are gone then. @default 'memory' */
  readonly from?: 'memory' | 'disk'
}

/** Nothing for what is the default, so that older platforms understand the request. */
export function bodyOf(from: ResumeOptions['from'] = 'memory'): { readonly json?: object } {
  return from === 'memory' ? {} : { json: { from } }
}

/** A request that may be sent again until it shows the end of what it asked for. */
export interface Operation<Answer> {
  /** For people: `The pause`. */
  readonly what: string
  /** Route of the POST, from `/v1` on. */
  readonly path: string
  /** The body; the same each time, because the idempotency key stands for it. @default none */
  readonly json?: object
  /** Whether an answer other than 202 shows the end, not a state on the way there. @default always */
  readonly isDone?: (answer: Answer) => boolean
}

/**
 * Asks for an operation and waits for its end. All requests carry one idempotency key: after a lost connection, and when the
 * end took longer than one answer waits, the next request finds the same operation instead of starting another.
 * @throws TimeoutError after `timeoutMs`
 */
export async function perform<Answer>(
  transport: Transport,
  { what, path, json, isDone = () => true }: Operation<Answer>,
  options: LifecycleOptions,
): Promise<Answer> {
  const { timeoutMs = LIFECYCLE_TIMEOUT_MS, ...call } = options
  const deadline = performance.now() + timeoutMs
  const headers = { 'Idempotency-Key': randomName('op') }
  for (;;) {
    const waitSec = Math.min(ANSWER_WAIT_SEC, Math.max(0, Math.ceil((deadline - performance.now()) / 1000)))
    const request = { requestTimeoutMs: waitSec * 1000 + ANSWER_GRACE_MS, ...call, headers, idempotent: true }
    const query = { wait_sec: waitSec }
    try {
      const response = await transport.request('POST', path, { ...request, query, ...(json ? { json } : {}) })
      const answer: Answer = await response.json()
      if (response.status !== ACCEPTED && isDone(answer)) return answer
    } catch (error) {
      if (!isAnswerWaitOver(error)) throw error
    }
    if (performance.now() >= deadline) {
      throw createError(`${what} did not end within ${timeoutMs} ms (timeoutMs); it goes on.`, { code: 'timeout' })
    }
    await delay(POLL_MS, call.signal)
  }
}

/** The server said that its wait is over, which is not the end of the operation. */
function isAnswerWaitOver(error: unknown): boolean {
  return error instanceof TimeoutError && error.status !== 0
}
