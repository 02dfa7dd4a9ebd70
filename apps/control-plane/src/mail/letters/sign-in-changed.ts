import type { MailData } from '../kinds.js'
import { type Letter, type Links, plainName, showTime } from '../letter.js'

export function signInChanged({ name, what, at }: MailData['sign-in-changed'], link: Links): Letter {
  return {
    subject: 'How you sign in to Wrenn has changed',
    name,
    before: [`On ${showTime(at)}: ${plainName(what)}. If that was you, all is well.`],
    action: { label: 'It was not me: choose a new password', url: link('/forgot-password') },
    after: [],
  }
}
