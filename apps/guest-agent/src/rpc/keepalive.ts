import type { RpcCall } from './router.js'

const DEFAULT_KEEPALIVE_S = 90

/** How long a stream may be silent before it carries a keepalive event, from the client's `Keepalive-Ping-Interval` in seconds. */
export function keepaliveOf(call: RpcCall): number {
  const seconds = Number(call.headers['keepalive-ping-interval'])
  return (Number.isFinite(seconds) && seconds > 0 ? Math.min(seconds, 86_400) : DEFAULT_KEEPALIVE_S) * 1000
}
