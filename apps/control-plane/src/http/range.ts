/** A byte range as asked: absolute, from a byte on, or the last bytes. */
export type RangeRequest = { readonly offset: number; readonly length?: number } | { readonly last: number }

/**
 * Reads a `Range` header with one range. Anything else (several ranges, other units, nonsense) counts as absent, as RFC 9110
 * §14.2 allows.
 */
export function parseRange(header: string | undefined): RangeRequest | undefined {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header?.trim() ?? '')
  if (match === null) return undefined
  const [, from = '', to = ''] = match
  if (from === '') return to === '' ? undefined : { last: Number(to) }
  if (to === '') return { offset: Number(from) }
  return Number(to) < Number(from) ? undefined : { offset: Number(from), length: Number(to) - Number(from) + 1 }
}
