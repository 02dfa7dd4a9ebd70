import { randomBytes } from 'node:crypto'

declare const brand: unique symbol
type Branded<Name extends string> = string & { readonly [brand]: Name }

/** `cl-` and 25 base-36 digits; part of the names of everything that the capsule has on its host. */
export type CapsuleId = Branded<'CapsuleId'>
/**
 * `team-` and 25 base-36 digits. A team owns keys, capsules and snapshots; nothing is shared between teams but base
 * templates.
 */
export type TeamId = Branded<'TeamId'>
/** `key-` and 25 base-36 digits: names a key in logs and lists, and is not the key. */
export type ApiKeyId = Branded<'ApiKeyId'>
/** `usr-` and 25 base-36 digits: a person's account. */
export type UserId = Branded<'UserId'>
/** `ses-` and 25 base-36 digits: one login of a person, through all tokens that follow from it. */
export type SessionId = Branded<'SessionId'>
/** `host-` and 25 base-36 digits, made at the first start of a host agent and kept in its directory. */
export type HostId = Branded<'HostId'>
/** `cp-` and 25 base-36 digits. Where the API takes one, it takes the checkpoint's name too. */
export type CheckpointId = Branded<'CheckpointId'>
/** `log-` and 25 base-36 digits. Names an entry of the audit trail. */
export type AuditId = Branded<'AuditId'>
/** `snap-` and 25 base-36 digits. Users name snapshots by their template name instead. */
export type SnapshotId = Branded<'SnapshotId'>
/** `inv-` and 25 base-36 digits. Names an invitation to a team, and is not what its link carries. */
export type InvitationId = Branded<'InvitationId'>
/** `bld-` and 25 base-36 digits. Names one build of a template. */
export type BuildId = Branded<'BuildId'>
/** `pk-` and 25 base-36 digits. Names a passkey; the id that its authenticator gave it is another, and of any length. */
export type PasskeyId = Branded<'PasskeyId'>
/** `ch-` and 25 base-36 digits. Names a channel that a team is told through. */
export type ChannelId = Branded<'ChannelId'>
/** `sec-` and 25 base-36 digits. Names a secret of a team, as its name does. */
export type SecretId = Branded<'SecretId'>
/** `mail-` and 25 base-36 digits. Part of the mail's Message-ID, so that a mail that came twice can be told. */
export type MailId = Branded<'MailId'>

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

/** `create()` makes a new random id; `is(text)` proves that a text from outside has the form, not that there is such a capsule. */
export const capsuleIds = kind<CapsuleId>('cl')
/** As {@link capsuleIds}, of teams. */
export const teamIds = kind<TeamId>('team')
/** As {@link capsuleIds}, of keys. */
export const apiKeyIds = kind<ApiKeyId>('key')
/** As {@link capsuleIds}, of people's accounts. */
export const userIds = kind<UserId>('usr')
/** As {@link capsuleIds}, of sessions. */
export const sessionIds = kind<SessionId>('ses')
/** As {@link capsuleIds}, of hosts. */
export const hostIds = kind<HostId>('host')
/** As {@link capsuleIds}, of checkpoints. */
export const checkpointIds = kind<CheckpointId>('cp')
/** As {@link capsuleIds}, of entries of the audit trail. */
export const auditIds = kind<AuditId>('log')
/** As {@link capsuleIds}, of snapshots. */
export const snapshotIds = kind<SnapshotId>('snap')
/** As {@link capsuleIds}, of invitations. */
export const invitationIds = kind<InvitationId>('inv')
/** As {@link capsuleIds}, of builds. */
export const buildIds = kind<BuildId>('bld')
/** As {@link capsuleIds}, of passkeys. */
export const passkeyIds = kind<PasskeyId>('pk')
/** As {@link capsuleIds}, of channels. */
export const channelIds = kind<ChannelId>('ch')
/** As {@link capsuleIds}, of secrets. */
export const secretIds = kind<SecretId>('sec')
/** As {@link capsuleIds}, of mails. */
export const mailIds = kind<MailId>('mail')

/** `prefix-` + 8 hex digits: tags of processes and terminals. */
export function randomTag(prefix: string): string {
  return `${prefix}-${randomBytes(4).toString('hex')}`
}
