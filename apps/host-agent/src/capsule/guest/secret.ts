import { randomBytes } from 'node:crypto'

/** Proves this host to one guest agent. */
export function newSecret(): string {
  return randomBytes(32).toString('base64url')
}
