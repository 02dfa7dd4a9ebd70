import { AppError } from '@wrenn/base'
import { type UsagePeriod, usageSpanDays } from '@wrenn/protocol'
import type { DaySpan } from '../../store/usage-ledger.js'

const DAY_MS = 24 * 3600_000
const DEFAULT_DAYS = 30

/** A day some days later, in UTC. */
export function dayAfter(day: string, days: number): string {
  return new Date(Date.parse(day) + days * DAY_MS).toISOString().slice(0, 10)
}

/** How many days there are in it, both ends included; 0 when it ends before it begins. */
export function daysOf({ from, to }: DaySpan): number {
  return Math.max(0, (Date.parse(to) - Date.parse(from)) / DAY_MS + 1)
}

/**
 * What is asked for: thirty days up to today where nothing is said, and whole months for points of months.
 * @throws AppError `invalid_request`
 */
export function spanOf(
  asked: { readonly from?: string | undefined; readonly to?: string | undefined },
  today: string,
  period: UsagePeriod,
): DaySpan {
  const to = asked.to ?? (asked.from !== undefined && asked.from > today ? asked.from : today)
  const from = asked.from ?? dayAfter(to, 1 - DEFAULT_DAYS)
  if (from > to) throw new AppError('invalid_request', `from: must not be after to (${to}).`)
  const span = period === 'month' ? { from: firstOfMonth(from), to: lastOfMonth(to) } : { from, to }
  const [days, most] = [daysOf(span), usageSpanDays[period]]
  if (days > most) {
    const message = `from, to: these are ${days} days; ask for at most ${most} at once, or for months.`
    throw new AppError('invalid_request', message, { details: { max: most } })
  }
  return span
}

function firstOfMonth(day: string): string {
  return `${day.slice(0, 7)}-01`
}

function lastOfMonth(day: string): string {
  return dayAfter(firstOfMonth(dayAfter(firstOfMonth(day), 31)), -1)
}
