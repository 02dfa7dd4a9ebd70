import type { MailData, MailKind } from '../kinds.js'
import type { Letter, Links } from '../letter.js'
import { accountDeleted } from './account-deleted.js'
import { activation } from './activation.js'
import { alreadyRegistered } from './already-registered.js'
import { deletionScheduled } from './deletion-scheduled.js'
import { invitation } from './invitation.js'
import { ownershipReceived } from './ownership-received.js'
import { passwordChanged } from './password-changed.js'
import { passwordReset } from './password-reset.js'
import { signInChanged } from './sign-in-changed.js'
import { teamJoined } from './team-joined.js'

/** A letter for each kind of mail. */
export const letters: { readonly [Kind in MailKind]: (data: MailData[Kind], link: Links) => Letter } = {
  activation,
  'already-registered': alreadyRegistered,
  'password-reset': passwordReset,
  'password-changed': passwordChanged,
  'sign-in-changed': signInChanged,
  'deletion-scheduled': deletionScheduled,
  'account-deleted': accountDeleted,
  invitation,
  'team-joined': teamJoined,
  'ownership-received': ownershipReceived,
}
