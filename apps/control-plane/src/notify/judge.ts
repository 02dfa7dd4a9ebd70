import type { Answer, Verdict } from './provider.js'

/** Whoever names a longer time is asked again after this one all the same. */
const MAX_AFTER_MS = 3600_000

/** Seconds or a date of `Retry-After` (RFC 9110 §10.2.3). */
export function retryAfterMs({ headers }: Pick<Answer, 'headers'>, now = Date.now()): number | undefined {
  const text = String(headers['retry-after'] ?? '').trim()
  if (/^\d+(?:\.\d+)?$/.test(text)) return bounded(Number(text) * 1000)
  const date = /[a-z]/i.test(text) ? Date.parse(text) : Number.NaN
  return Number.isNaN(date) ? undefined : bounded(date - now)
}

/** A time that a provider asks to wait. */
export function bounded(ms: number | undefined): number | undefined {
  return ms === undefined || !Number.isFinite(ms) ? undefined : Math.min(Math.max(0, ms), MAX_AFTER_MS)
}

/** A field of a JSON body, by its path. */
export function fieldOf({ body }: Answer, ...path: readonly string[]): unknown {
  try {
    return path.reduce<unknown>(
      (value, key) =>
        typeof value === 'object' && value !== null && Object.hasOwn(value, key) ? Reflect.get(value, key) : undefined,
      JSON.parse(body),
    )
  } catch {
    return undefined
  }
}

/** That field where it is a number. */
export function numberOf(answer: Answer, ...path: readonly string[]): number | undefined {
  const value = fieldOf(answer, ...path)
  return typeof value === 'number' ? value : undefined
}

/** A sentence about an answer, with all that its sender says of it: only who has blanked secrets may cut it. */
export function reasonOf({ status, body }: Answer, said?: unknown): string {
  const text = typeof said === 'string' && said !== '' ? said : body
  const words = text.replaceAll(/\s+/g, ' ').trim()
  return `The target answered ${status}${words === '' ? '' : `: ${words}`}`
}

interface Judgement {
  /** Statuses after which this message never will be taken. */
  readonly refused: readonly number[]
  /** Statuses after which nothing will be. */
  readonly gone: readonly number[]
  /** What the body says of a failure. */
  readonly said?: unknown
  /** What the body says of the time to wait. */
  readonly afterMs?: number | undefined
}

/** What most answers mean. All that is neither named nor a success is tried again: a redirect too, which is not followed. */
export function judge(answer: Answer, { refused, gone, said, afterMs }: Judgement): Verdict {
  const { status } = answer
  if (status >= 200 && status < 300) return { kind: 'delivered' }
  const reason = reasonOf(answer, said)
  if (refused.includes(status)) return { kind: 'refused', reason }
  if (gone.includes(status)) return { kind: 'gone', reason }
  const wait = bounded(afterMs) ?? retryAfterMs(answer)
  return { kind: 'later', reason, isRate: status === 429 || (status === 503 && wait !== undefined), afterMs: wait }
}
