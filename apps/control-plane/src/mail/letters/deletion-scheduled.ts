import type { MailData } from '../kinds.js'
import { type Letter, type Links, showTime } from '../letter.js'

export function deletionScheduled({ name, deletedAt }: MailData['deletion-scheduled'], link: Links): Letter {
  return {
    subject: 'Your Wrenn account will be deleted',
    name,
    before: [
      `You asked us to delete your account. That happens on ${showTime(deletedAt)}; until then you can change your mind.`,
    ],
    action: { label: 'Log in and keep my account', url: link('/login') },
    after: [],
  }
}
