import { groupBy } from '@wrenn/base'
import type { Sent } from '../../notify/index.js'
import type { AttemptRecord } from '../../store/channel-deliveries.js'
import type { DeliveryRow } from '../../store/schema.js'

/** Nothing of a batch is begun later than this after its begin. */
const BEGIN_WITHIN_MS = 20_000

/** Why a channel rests: what its target said last, or that it asks for a pause. */
export interface Rest {
  readonly kind: 'later' | 'gone' | 'pause'
  readonly reason: string | undefined
  /** A rate limit rather than a fault. */
  readonly isRate: boolean
  /** What the target asked for. */
  readonly afterMs: number | undefined
}

/** What a batch came to. */
export interface BatchEnd {
  readonly records: readonly AttemptRecord[]
  /** `undefined`: all of it may go on. */
  readonly rest: Rest | undefined
  readonly delivered: number
}

interface BatchDeps {
  readonly concurrency: number
  readonly send: (row: DeliveryRow) => Promise<Sent>
  readonly signal: AbortSignal
}

/**
 * Sends some of what waits, each row after those of its lane before it. Lanes that have failed before begin when those of all others
 * are through, so that one whose events the target cannot take holds up no other. The first failure that may pass ends the batch: what is under way is waited for.
 */
export async function sendBatch(
  rows: readonly DeliveryRow[],
  { concurrency, send, signal }: BatchDeps,
): Promise<BatchEnd> {
  const records: AttemptRecord[] = []
  let rest: Rest | undefined
  let delivered = 0
  const { fresh, failed } = lanesOf(rows, concurrency)
  const since = performance.now()
  const mayGoOn = (): boolean => rest === undefined && !signal.aborted && performance.now() - since < BEGIN_WITHIN_MS
  const work = async (queue: DeliveryRow[][]): Promise<void> => {
    for (let lane = queue.shift(); lane !== undefined && mayGoOn(); lane = queue.shift()) {
      for (const row of lane) {
        if (!mayGoOn()) return
        const sent = await send(row)
        records.push(recordOf(row, sent))
        if (sent.verdict.kind === 'delivered') delivered++
        rest ??= restAfter(sent)
      }
    }
  }
  for (const queue of [fresh, failed]) await Promise.all(Array.from({ length: concurrency }, () => work(queue)))
  return { records, rest, delivered }
}

/** One that takes one at a time gets all in the order in which it happened, whatever it concerns. */
function lanesOf(
  rows: readonly DeliveryRow[],
  concurrency: number,
): { readonly fresh: DeliveryRow[][]; readonly failed: DeliveryRow[][] } {
  const lanes = [...groupBy(rows, ({ lane }) => lane).values()]
  const isFresh = ([head]: DeliveryRow[]): boolean => (head?.attempts ?? 0) === 0
  const fresh = lanes.filter(isFresh)
  const failed = lanes.filter((lane) => !isFresh(lane))
  const merged = concurrency === 1 ? [fresh.flat().sort((one, other) => one.seq - other.seq)] : fresh
  return { fresh: merged, failed }
}

function restAfter({ verdict }: Sent): Rest | undefined {
  if (verdict.kind === 'refused') return undefined
  if (verdict.kind === 'gone') return { kind: 'gone', reason: verdict.reason, isRate: false, afterMs: undefined }
  if (verdict.kind === 'later') return { ...verdict, afterMs: verdict.afterMs }
  if (verdict.pauseMs === undefined) return undefined
  return { kind: 'pause', reason: undefined, isRate: true, afterMs: verdict.pauseMs }
}

function recordOf({ seq }: DeliveryRow, { verdict, request, answer, durationMs }: Sent): AttemptRecord {
  const states = { delivered: 'delivered', later: 'pending', refused: 'dead', gone: 'pending' } as const
  return {
    seq,
    state: states[verdict.kind],
    reason: 'reason' in verdict ? verdict.reason : null,
    request,
    answer: answer === undefined ? null : { ...answer, duration_ms: durationMs },
  }
}
