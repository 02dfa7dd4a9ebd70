import { type RawBuilder, sql } from 'kysely'

/** So much later than now, by the clock of the database: those of its clients may differ. */
export function inSeconds(seconds: number): RawBuilder<Date> {
  return sql<Date>`now() + ${seconds} * interval '1 second'`
}
