import type { MailData } from '../kinds.js'
import { type Letter, type Links, plainName } from '../letter.js'

export function teamJoined({ name, team, member }: MailData['team-joined'], link: Links): Letter {
  return {
    subject: `${plainName(member)} joined ${plainName(team)}`,
    name,
    before: [`${plainName(member)} accepted your invitation and is now in the team ${plainName(team)}.`],
    action: { label: 'See the team', url: link('/dashboard/team') },
    after: [],
  }
}
