/** How long events are kept. */
export const KEEP_MS = 24 * 3600_000
/** Up to this age a place is believed: all that came after it is still there, also of transactions that took long. */
export const CURSOR_MS = KEEP_MS - 3600_000
/** Who has missed more lists everything anew: that is faster, for them and for us. */
export const MAX_BEHIND = 10_000
/** Of one team, at one control plane. */
export const MAX_FOLLOWERS = 100
/** Read at a time. */
export const PAGE = 500
/** Something is heard of a stream at least this often; proxies end connections that are silent for a minute. */
export const BEAT_MS = 15_000
