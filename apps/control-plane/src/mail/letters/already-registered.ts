import type { MailData } from '../kinds.js'
import type { Letter, Links } from '../letter.js'

export function alreadyRegistered({ name }: MailData['already-registered'], link: Links): Letter {
  return {
    subject: 'You already have a Wrenn account',
    name,
    before: [
      'Somebody, most likely you, signed up for Wrenn with this address. It has an account already, so just log in.',
    ],
    action: { label: 'Log in', url: link('/login') },
    after: ['If you forgot your password, the log-in page helps. If it was not you, nothing has changed.'],
  }
}
