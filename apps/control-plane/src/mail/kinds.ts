import type { Role } from '@wrenn/protocol'

/** What each kind of mail needs. Times are ISO 8601; a `token` becomes part of its link and is nowhere else. */
export interface MailData {
  /** Proves the address of a new account. */
  readonly activation: { readonly name: string; readonly token: string; readonly expiresAt: string }
  /** Somebody signed up with the address of an account that is there: only its owner learns that. */
  readonly 'already-registered': { readonly name: string }
  readonly 'password-reset': { readonly name: string; readonly token: string; readonly expiresAt: string }
  readonly 'password-changed': { readonly name: string; readonly at: string }
  /** A way to sign in came or went: say which in a few words, such as "a passkey was added". */
  readonly 'sign-in-changed': { readonly name: string; readonly what: string; readonly at: string }
  readonly 'deletion-scheduled': { readonly name: string; readonly deletedAt: string }
  readonly 'account-deleted': { readonly name: string }
  readonly invitation: {
    readonly inviter: string
    readonly team: string
    readonly role: Role
    readonly token: string
    readonly expiresAt: string
  }
  readonly 'team-joined': { readonly name: string; readonly team: string; readonly member: string }
  readonly 'ownership-received': { readonly name: string; readonly team: string; readonly by: string }
}

export type MailKind = keyof MailData

/** A mail to be sent. `expiresAt` of its data also bounds how long sending is tried. */
export type Mail = {
  [Kind in MailKind]: { readonly kind: Kind /** One address. */; readonly to: string } & MailData[Kind]
}[MailKind]
