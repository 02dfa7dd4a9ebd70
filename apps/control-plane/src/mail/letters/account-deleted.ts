import type { MailData } from '../kinds.js'
import type { Letter } from '../letter.js'

export function accountDeleted({ name }: MailData['account-deleted']): Letter {
  return {
    subject: 'Your Wrenn account is deleted',
    name,
    before: ['Your account and what belonged to it are gone. Thank you for having been here.'],
    after: [],
  }
}
