import { AppError } from '@wrenn/base'
import type { ListedTeamInfo, TeamInfo, TeamInvitation, TeamMember, Wrenn } from '@wrenn/sdk'
import { type Command, Option } from 'commander'
import type { CliConfig } from '../config.js'
import { apiUrlOf, connect, loginsOf } from '../connection.js'
import { type CommonOptions, type Context, contextOf, withJson } from '../context.js'
import { printable, table } from '../output.js'
import { showSpan } from '../units.js'

const help = `
Examples:
  wrenn team ls
  wrenn team switch <id or slug>
  wrenn team create "Data science"
  wrenn team invite ada@example.org --role admin
  wrenn team audit on
  wrenn team join <code from the mail>`

const givenRoles = ['admin', 'member', 'viewer'] as const
type GivenRole = (typeof givenRoles)[number]

/** Which team a command is about. */
interface TeamOptions extends CommonOptions {
  readonly team?: string
}

/** `wrenn team`. */
export function addTeam(program: Command): void {
  const team = program.command('team').description('teams, and who is in them').addHelpText('after', help)
  addTeams(team)
  addMembers(team)
  addInvitations(team)
}

function addTeams(team: Command): void {
  withJson(team.command('ls').description('list the teams that you are in')).action(async (options: CommonOptions) => {
    const { wrenn, output } = await open(options)
    const teams = await wrenn.teams.list()
    output.result(
      teams.map((each) => ({ ...teamJson(each), current: each.isCurrent })),
      () => showTeams(teams),
    )
  })
  withJson(team.command('create <name>').description('make a team of your own')).action(
    async (name: string, options: CommonOptions) => {
      const { wrenn, output } = await open(options)
      const made = await wrenn.teams.create(name)
      output.result(teamJson(made), () => made.id)
    },
  )
  withJson(team.command('join <code>').description('come into the team of an invitation')).action(
    async (code: string, options: CommonOptions) => {
      const { wrenn, output } = await open(options)
      const joined = await wrenn.teams.join(code)
      output.result(teamJson(joined), () => `You are in ${printable(joined.name)} (${joined.id}).`)
    },
  )
  const move = team.command('switch <team>').description('work in another of your teams, named by its id or slug')
  withJson(move).action(async (wanted: string, options: CommonOptions) => {
    const { wrenn, output, config } = await open(options)
    const found = (await wrenn.teams.list()).find(({ id, slug }) => id === wanted || slug === wanted)
    if (found === undefined) throw new AppError('team_not_found', `You are in no team ${wanted}.`)
    await switchTeam(config, wrenn, found.id)
    output.result(teamJson(found), () => `You work in ${printable(found.name)} (${found.id}).`)
  })
  about(team.command('rename <name>').description('rename a team'), async ({ wrenn, teamId }, name: string) => {
    await wrenn.teams.rename(teamId, name)
    return { id: teamId, name }
  })
  about(
    team.command('audit <on|off>').description('record commands and file operations in the audit trail, or do not'),
    async ({ wrenn, teamId }, wanted: string) => {
      const isOn = onOrOff(wanted)
      await wrenn.teams.auditDataAccess(teamId, isOn)
      return { id: teamId, audit_data_access: isOn }
    },
  )
  about(
    team
      .command('delete')
      .description('end a team with its people, keys, capsules and snapshots')
      .requiredOption('--yes', 'this cannot be undone'),
    async ({ wrenn, teamId }) => {
      await wrenn.teams.delete(teamId)
      return { deleted: teamId }
    },
  )
}

function addMembers(team: Command): void {
  const command = team.command('members').description('list who is in a team')
  withTeam(withJson(command)).action(async (options: TeamOptions) => {
    const { wrenn, output } = await open(options)
    const members = await wrenn.teams.members(await teamOf(wrenn, options))
    output.result(members.map(memberJson), () => showMembers(members, new Date()))
  })
  about(
    team.command('role <user> <role>').description('change what somebody is: admin, member or viewer'),
    async ({ wrenn, teamId }, userId: string, role: string) => {
      await wrenn.teams.changeRole(teamId, userId, givenRole(role))
      return { user_id: userId, role }
    },
  )
  about(
    team.command('remove <user>').description('remove somebody, with the keys that they made in the team'),
    async ({ wrenn, teamId }, userId: string) => {
      await wrenn.teams.remove(teamId, userId)
      return { removed: userId }
    },
  )
  about(
    team.command('transfer <user>').description('hand a team over; you become an admin'),
    async ({ wrenn, teamId }, userId: string) => {
      await wrenn.teams.transfer(teamId, userId)
      return { owner: userId }
    },
  )
  about(team.command('leave').description('leave a team'), async ({ wrenn, teamId }) => {
    await wrenn.teams.leave(teamId)
    return { left: teamId }
  })
}

function addInvitations(team: Command): void {
  const list = team.command('invitations').description('list invitations that nobody has accepted yet')
  withTeam(withJson(list)).action(async (options: TeamOptions) => {
    const { wrenn, output } = await open(options)
    const invitations = await wrenn.teams.invitations(await teamOf(wrenn, options))
    output.result(invitations.map(invitationJson), () => showInvitations(invitations, new Date()))
  })
  const invite = team
    .command('invite <email>')
    .description('invite somebody by mail')
    .addOption(new Option('--role <role>', 'what they become').choices([...givenRoles]).default('member'))
  withTeam(withJson(invite)).action(async (email: string, options: TeamOptions & { readonly role: GivenRole }) => {
    const { wrenn, output } = await open(options)
    const made = await wrenn.teams.invite(await teamOf(wrenn, options), email, { role: options.role })
    output.result(invitationJson(made), () => made.id)
  })
  about(
    team.command('resend <invitation>').description('send an invitation once more, with a new link'),
    async ({ wrenn, teamId }, id: string) => invitationJson(await wrenn.teams.resendInvitation(teamId, id)),
  )
  about(
    team.command('uninvite <invitation>').description('revoke an invitation'),
    async ({ wrenn, teamId }, id: string) => {
      await wrenn.teams.revokeInvitation(teamId, id)
      return { revoked: id }
    },
  )
}

interface AboutTeam {
  readonly wrenn: Wrenn
  readonly teamId: string
}

/** A command that changes a team and says little. */
function about<Words extends string[]>(
  command: Command,
  change: (about: AboutTeam, ...words: Words) => Promise<Record<string, unknown>>,
): void {
  withTeam(withJson(command)).action(async (...given: [...Words, TeamOptions, Command]) => {
    // commander gives the words of the command, its options, and itself.
    const words = given.slice(0, -2) as Words
    const options = given[given.length - 2] as TeamOptions
    const { wrenn, output } = await open(options)
    const done = await change({ wrenn, teamId: await teamOf(wrenn, options) }, ...words)
    output.result(done, () => 'Done.')
  })
}

function withTeam(command: Command): Command {
  return command.option('--team <id>', 'which team (default: the one that you work in)')
}

async function open(options: CommonOptions): Promise<Context & { readonly wrenn: Wrenn }> {
  const context = contextOf(options)
  return { ...context, wrenn: await connect(context.config) }
}

/** The session moves; its tokens stay good, and one more comes. */
async function switchTeam(config: CliConfig, wrenn: Wrenn, teamId: string): Promise<void> {
  const { token, expiresAt } = await wrenn.account.switchTeam(teamId)
  await loginsOf(config).change(await apiUrlOf(config), async (login) =>
    login === undefined || token === undefined ? login : { ...login, token, expires_at: expiresAt.toISOString() },
  )
}

/** @throws AppError `no_team` for who has left the team that they worked in */
async function teamOf(wrenn: Wrenn, { team }: TeamOptions): Promise<string> {
  if (team !== undefined) return team
  const current = (await wrenn.teams.list()).find(({ isCurrent }) => isCurrent)
  if (current === undefined) throw new AppError('no_team', 'You are no longer in the team that you worked in.')
  return current.id
}

function givenRole(role: string): GivenRole {
  const known = givenRoles.find((each) => each === role)
  if (known !== undefined) return known
  throw new AppError('invalid_request', `${role} is none of ${givenRoles.join(', ')}.`)
}

function onOrOff(wanted: string): boolean {
  if (wanted === 'on' || wanted === 'off') return wanted === 'on'
  throw new AppError('invalid_request', `${wanted} is neither on nor off.`)
}

function teamJson({ id, name, slug, auditsDataAccess, role, createdAt }: TeamInfo) {
  return { id, name, slug, audit_data_access: auditsDataAccess, role, created_at: createdAt }
}

function memberJson({ userId, name, email, role, joinedAt }: TeamMember) {
  return { user_id: userId, name, email, role, joined_at: joinedAt }
}

function invitationJson(row: TeamInvitation) {
  const { id, email, role, inviterName, timesSent, sentAt, expiresAt } = row
  return { id, email, role, inviter_name: inviterName, times_sent: timesSent, sent_at: sentAt, expires_at: expiresAt }
}

function showTeams(teams: readonly ListedTeamInfo[]): string {
  return table(
    ['ID', 'NAME', 'SLUG', 'YOUR ROLE', 'WORKING IN'],
    teams.map(({ id, name, slug, role, isCurrent }) => [id, printable(name), slug, role, isCurrent ? 'yes' : '']),
  )
}

function showMembers(members: readonly TeamMember[], now: Date): string {
  const rows = members.map(({ userId, name, email, role, joinedAt }) => [
    userId,
    printable(name),
    printable(email),
    role,
    `${showSpan(now.getTime() - joinedAt.getTime())} ago`,
  ])
  return table(['ID', 'NAME', 'ADDRESS', 'ROLE', 'JOINED'], rows)
}

function showInvitations(invitations: readonly TeamInvitation[], now: Date): string {
  const rows = invitations.map(({ id, email, role, timesSent, expiresAt }) => [
    id,
    printable(email),
    role,
    String(timesSent),
    expiresAt <= now ? 'expired' : `in ${showSpan(expiresAt.getTime() - now.getTime())}`,
  ])
  return table(['ID', 'ADDRESS', 'ROLE', 'SENT', 'EXPIRES'], rows)
}
