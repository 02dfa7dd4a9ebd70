import { randomBytes } from 'node:crypto'

declare const brand: unique symbol
type Branded<Name extends string> = string & { readonly [brand]: Name }

export type CapsuleId = Branded<'CapsuleId'>
export type TeamId = Branded<'TeamId'>
export type ApiKeyId = Branded<'ApiKeyId'>
export type HostId = Branded<'HostId'>
export type CheckpointId = Branded<'CheckpointId'>
export type SnapshotId = Branded<'SnapshotId'>

const DIGITS = 25
const pattern = /^[0-9a-z]{25}$/

/** 128 random bits as 25 base-36 digits: DNS-safe, fixed length, sorts by nothing. */
function randomBase36(): string {
  return BigInt(`0x${randomBytes(16).toString('hex')}`)
    .toString(36)
    .padStart(DIGITS, '0')
}

function kind<Id extends string>(prefix: string) {
  return {
    create: (): Id => `${prefix}-${randomBase36()}` as Id, // the only place that brands, with the form just built
    is: (text: string): text is Id => text.startsWith(`${prefix}-`) && pattern.test(text.slice(prefix.length + 1)),
  }
}

export const capsuleIds = kind<CapsuleId>('cl')
export const teamIds = kind<TeamId>('team')
export const apiKeyIds = kind<ApiKeyId>('key')
export const hostIds = kind<HostId>('host')
export const checkpointIds = kind<CheckpointId>('cp')
export const snapshotIds = kind<SnapshotId>('snap')

/** `prefix-` + 8 hex digits: tags of processes and terminals. */
export function randomTag(prefix: string): string {
  return `${prefix}-${randomBytes(4).toString('hex')}`
}
