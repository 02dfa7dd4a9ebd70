import type { MailData } from '../kinds.js'
import { type Letter, type Links, showTime } from '../letter.js'

export function passwordChanged({ name, at }: MailData['password-changed'], link: Links): Letter {
  return {
    subject: 'Your Wrenn password was changed',
    name,
    before: [`The password of your account was changed on ${showTime(at)}. If that was you, all is well.`],
    action: { label: 'It was not me: choose a new password', url: link('/forgot-password') },
    after: [],
  }
}
