import type { MailData } from '../kinds.js'
import { type Letter, type Links, showTime } from '../letter.js'

export function activation({ name, token, expiresAt }: MailData['activation'], link: Links): Letter {
  return {
    subject: 'Activate your Wrenn account',
    name,
    before: ['You signed up for Wrenn with this address. One click, and your account is ready.'],
    action: { label: 'Activate my account', url: link('/activate', { token }) },
    after: [
      `The link works once, until ${showTime(expiresAt)}.`,
      'Was that not you? Then do nothing: without the click there is no account.',
    ],
  }
}
