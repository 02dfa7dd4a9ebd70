const DIGITS = '0123456789abcdefghijklmnopqrstuvwxyz'

/** The next id in the order of the database: of entries of one moment, the one that came later has the greater id. */
export function successor(id: string): string {
  const at = id.search(/[^z]z*$/)
  const next = DIGITS[DIGITS.indexOf(id[at] ?? '') + 1]
  // All digits are `z`, which no random id is.
  if (next === undefined) throw new Error(`${id} has no successor`)
  return id.slice(0, at) + next + '0'.repeat(id.length - at - 1)
}
