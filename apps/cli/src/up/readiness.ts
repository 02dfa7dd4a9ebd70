import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'

const POLL_INTERVAL_MS = 500
const ANSWER_TIMEOUT_MS = 3000

const answerSchema = z.object({
  ready: z.boolean(),
  checks: z.record(z.string(), z.object({ ok: z.boolean(), reason: z.string().optional() })),
})

/** What `GET /ready` says, or that it is not answered yet. */
export interface Readiness {
  readonly ready: boolean
  /** A Wrenn answered, ready or not. */
  readonly answered: boolean
  /** Sentences for people: what is being waited for. */
  readonly reasons: readonly string[]
}

/** Asks `GET /ready` once; a server that does not answer yet is simply not ready. */
export async function askReady(apiUrl: string): Promise<Readiness> {
  try {
    const response = await fetch(`${apiUrl}/ready`, { signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) })
    const { ready, checks } = answerSchema.parse(await response.json())
    const reasons = Object.values(checks).flatMap((check) => (check.ok || !check.reason ? [] : [check.reason]))
    return { ready, reasons, answered: true }
  } catch {
    // Refused, reset, timed out or not JSON: all mean "not yet" to whoever waits.
    return { ready: false, reasons: [], answered: false }
  }
}

/** Polls until the platform is ready, telling what it waits for whenever that changes. */
export async function waitReady(
  apiUrl: string,
  options: { readonly signal: AbortSignal; readonly onReasons: (reasons: readonly string[]) => void },
): Promise<void> {
  let told = ''
  for (;;) {
    options.signal.throwIfAborted()
    const { ready, reasons } = await askReady(apiUrl)
    if (ready) return
    if (reasons.length > 0 && reasons.join('\n') !== told) {
      told = reasons.join('\n')
      options.onReasons(reasons)
    }
    await delay(POLL_INTERVAL_MS, undefined, { signal: options.signal })
  }
}

/** Waits until a platform answers at all, ready or not. */
export async function waitAnswered(apiUrl: string, signal: AbortSignal): Promise<void> {
  while (!(await askReady(apiUrl)).answered) await delay(POLL_INTERVAL_MS, undefined, { signal })
}
