import type { MailData } from '../kinds.js'
import { type Letter, type Links, plainName } from '../letter.js'

export function ownershipReceived({ name, team, by }: MailData['ownership-received'], link: Links): Letter {
  return {
    subject: `You now own ${plainName(team)} on Wrenn`,
    name,
    before: [`${plainName(by)} handed the team ${plainName(team)} over to you: you may do everything in it now.`],
    action: { label: 'See the team', url: link('/dashboard/team') },
    after: [],
  }
}
