import { randomBytes } from 'node:crypto'
import type { PortAccess } from '@wrenn/protocol'

/** A token for the ports of a private capsule, `null` for a public one. One that has a token keeps it. */
export function portTokenFor(access: PortAccess, now: string | null = null): string | null {
  if (access === 'public') return null
  return now ?? `wpt_${randomBytes(32).toString('base64url')}`
}
