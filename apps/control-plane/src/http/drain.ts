import type { Server } from 'node:http'
import type { SecureListener } from './secure-listener.js'

/** How long requests and operations may go on when a process stops. */
export const DRAIN_MS = 10_000
const CLOSE_IDLE_EVERY_MS = 50

interface Listeners {
  readonly server: Server
  readonly secure: SecureListener | undefined
  /** Ends what has no end of its own. */
  readonly settle: () => void
  /** Takes no more connections on `server`, and waits for those that it has. */
  readonly close: () => Promise<unknown>
  readonly drainMs: number
}

/** Takes no more requests and lets those that are under way come to their end, for `drainMs` at most. */
export async function drainListeners({ server, secure, settle, close, drainMs }: Listeners): Promise<void> {
  // Kept-alive connections whose last answer ends from now on are nobody's to wait for.
  const idle = setInterval(() => server.closeIdleConnections(), CLOSE_IDLE_EVERY_MS)
  const overdue = setTimeout(() => {
    server.closeAllConnections()
    secure?.closeAllConnections()
  }, drainMs)
  settle()
  await Promise.all([secure?.close(), close()])
  clearInterval(idle)
  clearTimeout(overdue)
}
