import type { MailData } from '../kinds.js'
import { type Letter, type Links, plainName, showTime } from '../letter.js'

const powers = {
  owner: 'as one of its owners',
  admin: 'as an admin: you may manage its people and keys',
  member: 'as a member: you may make and use capsules',
  viewer: 'as a viewer: you may look, and change nothing',
} as const satisfies Record<MailData['invitation']['role'], string>

export function invitation(data: MailData['invitation'], link: Links): Letter {
  const { inviter, team, role, token, expiresAt } = data
  return {
    subject: `${plainName(inviter)} invites you to ${plainName(team)} on Wrenn`,
    before: [`${plainName(inviter)} would like to have you in the team ${plainName(team)}, ${powers[role]}.`],
    action: { label: 'Accept the invitation', url: link('/invitation', { token }) },
    after: [
      `On a command line, \`wrenn team join\` with the code at the end of the link does the same.`,
      `The link works once, until ${showTime(expiresAt)}, for an account with this address. If you do not want to join, do nothing.`,
    ],
  }
}
