import type { MailData } from '../kinds.js'
import { type Letter, type Links, showTime } from '../letter.js'

export function passwordReset({ name, token, expiresAt }: MailData['password-reset'], link: Links): Letter {
  return {
    subject: 'Choose a new Wrenn password',
    name,
    before: ['You asked for a new password. Choose it here:'],
    action: { label: 'Choose a new password', url: link('/reset-password', { token }) },
    after: [
      `The link works once, until ${showTime(expiresAt)}.`,
      'Was that not you? Then do nothing: your password stays as it is.',
    ],
  }
}
