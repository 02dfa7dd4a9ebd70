/** Name of the tap in every slot; it is alone in its namespace. */
export const TAP = 'tap0'

/** Of /proc/net/dev, in its header's order after the name. */
const RECEIVED_COLUMN = 0
const SENT_COLUMN = 8

/** Bytes that a guest has received and sent since its slot was made. */
export interface TapCounters {
  readonly rxBytes: number
  readonly txBytes: number
}

/** Of a /proc/net/dev; `undefined` where there is no tap. The host receives what the guest sends. */
export function tapCounters(text: string): TapCounters | undefined {
  const begin = text.indexOf(`${TAP}:`)
  if (begin < 0) return undefined
  const line = text.slice(begin + TAP.length + 1, text.indexOf('\n', begin))
  const columns = line.trim().split(/\s+/).map(Number)
  const [rxBytes, txBytes] = [columns[SENT_COLUMN], columns[RECEIVED_COLUMN]]
  return rxBytes === undefined || txBytes === undefined ? undefined : { rxBytes, txBytes }
}
