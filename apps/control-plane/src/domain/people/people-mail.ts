import type { Db } from '../../store/database.js'

/** What is sent to people; each leaves with the commit of its transaction. */
export interface PeopleMailer {
  send(tx: Db, mail: PeopleMail): Promise<void>
}

/** As `mail/` knows it. */
export type PeopleMail =
  | {
      readonly kind: 'activation'
      readonly to: string
      readonly name: string
      readonly token: string
      readonly expiresAt: string
    }
  | {
      readonly kind: 'password-reset'
      readonly to: string
      readonly name: string
      readonly token: string
      readonly expiresAt: string
    }
  | { readonly kind: 'already-registered'; readonly to: string; readonly name: string }
  | { readonly kind: 'password-changed'; readonly to: string; readonly name: string; readonly at: string }
  | {
      readonly kind: 'sign-in-changed'
      readonly to: string
      readonly name: string
      readonly what: string
      readonly at: string
    }
  | { readonly kind: 'deletion-scheduled'; readonly to: string; readonly name: string; readonly deletedAt: string }
  | { readonly kind: 'account-deleted'; readonly to: string; readonly name: string }
