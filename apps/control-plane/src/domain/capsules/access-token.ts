import { randomBytes } from 'node:crypto'

/** A token that opens the guest agent of one capsule; it ends with the capsule. */
export function newAccessToken(): string {
  return `wat_${randomBytes(32).toString('base64url')}`
}
