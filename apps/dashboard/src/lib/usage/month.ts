import type { UsagePoint } from '@wrenn/sdk'

/** A month of the calendar, in UTC, as days of usage are. */
export interface Month {
  /** `2026-11`, as addresses have it. */
  readonly key: string
  /** The first and the last day, or today in a month that is not over. */
  readonly from: string
  readonly to: string
  /** For people. */
  readonly label: string
  readonly before: string
  /** `undefined`: it has not begun. */
  readonly after: string | undefined
  readonly isNow: boolean
}

const format = new Intl.DateTimeFormat('en', { month: 'long', year: 'numeric', timeZone: 'UTC' })
const EARLIEST = '1970-01'

/** The one that an address asks for, or this one where it asks for none that there can be. */
export function monthOf(text: string | null, now: Date): Month {
  const current = keyOf(now)
  const isKnown = text !== null && /^\d{4}-(?:0[1-9]|1[0-2])$/.test(text) && text > EARLIEST && text <= current
  const key = isKnown ? text : current
  const first = new Date(`${key}-01T00:00:00Z`)
  const isNow = key === current
  const after = keyOf(shifted(first, 1))
  return {
    ...{ key, isNow, label: format.format(first) },
    from: dayOf(first),
    to: isNow ? dayOf(now) : dayOf(new Date(shifted(first, 1).getTime() - 1)),
    before: keyOf(shifted(first, -1)),
    after: isNow ? undefined : after,
  }
}

/** What was used on one day. */
export interface UsageDay {
  readonly date: string
  /** `undefined`: nothing, or it is not over yet. */
  readonly point: UsagePoint | undefined
}

/** All days of the whole month, those too on which nothing was used. */
export function daysOf({ key }: Month, points: readonly UsagePoint[]): readonly UsageDay[] {
  const first = new Date(`${key}-01T00:00:00Z`)
  const count = new Date(shifted(first, 1).getTime() - 1).getUTCDate()
  return Array.from({ length: count }, (_, index) => {
    const date = `${key}-${String(index + 1).padStart(2, '0')}`
    return { date, point: points.find((point) => point.date === date) }
  })
}

function shifted(first: Date, months: number): Date {
  return new Date(Date.UTC(first.getUTCFullYear(), first.getUTCMonth() + months, 1))
}

function dayOf(when: Date): string {
  return when.toISOString().slice(0, 10)
}

function keyOf(when: Date): string {
  return when.toISOString().slice(0, 7)
}
