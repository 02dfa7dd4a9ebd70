import type { LagoInput, LagoVerdict } from '../../lago/index.js'
import type { LagoEvent, LagoRefusal } from '../../store/lago-events.js'

const DAY_SEC = 24 * 3600

/** What became of events that were sent together, and what is to be sent next of them. */
export interface LagoOutcome {
  readonly taken: readonly number[]
  readonly refused: readonly LagoRefusal[]
  readonly left: readonly (readonly LagoEvent[])[]
}

/**
 * An event as Lago has it. Its id is the same whenever it is sent, and that of no other. Its time is the last second of its day, so that it
 * counts for a subscription that began on that day.
 */
export function toLagoInput({ teamId, date, metric, revision, value }: LagoEvent): LagoInput {
  return {
    transaction_id: `wrenn:${teamId}:${date}:${metric}:${revision}`,
    external_subscription_id: teamId,
    code: `wrenn_${metric}`,
    timestamp: Date.parse(date) / 1000 + DAY_SEC - 1,
    properties: { value, date },
  }
}

/**
 * Lago takes a batch as a whole. Where it names events, these are left out of what is sent next; one that it has had before is where it
 * should be. Where it names none, halves are sent, down to one alone, which then is the one it means.
 */
export function outcomeOf(
  events: readonly LagoEvent[],
  verdict: Exclude<LagoVerdict, { readonly kind: 'later' }>,
): LagoOutcome {
  if (verdict.kind === 'taken') return { taken: events.map(({ seq }) => seq), refused: [], left: [] }
  if (verdict.kind === 'unclear') return halved(events, verdict.reason)
  const known = new Set(verdict.known)
  const left = events.filter((_, index) => !known.has(index) && !verdict.refused.has(index))
  return {
    taken: events.filter((_, index) => known.has(index)).map(({ seq }) => seq),
    refused: events.flatMap(({ seq }, index) => {
      const reason = verdict.refused.get(index)
      return reason === undefined ? [] : [{ seq, reason }]
    }),
    left: left.length === 0 ? [] : [left],
  }
}

function halved(events: readonly LagoEvent[], reason: string): LagoOutcome {
  const [first] = events
  if (events.length === 1 && first !== undefined) return { taken: [], refused: [{ seq: first.seq, reason }], left: [] }
  const middle = Math.ceil(events.length / 2)
  return { taken: [], refused: [], left: [events.slice(0, middle), events.slice(middle)] }
}
