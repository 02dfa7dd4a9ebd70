import type * as wire from '@wrenn/protocol'
import type { CallOptions, Transport } from './transport.js'

/** What somebody is in a team. A newer server may have more. */
export type TeamRole = 'owner' | 'admin' | 'member' | 'viewer' | (string & {})

/** A team that the client's key or session is in. */
export interface TeamInfo {
  readonly id: string
  readonly name: string
  /** Unique; for URLs. */
  readonly slug: string
  readonly role: TeamRole
  readonly createdAt: Date
}

/** One of your teams. */
export interface ListedTeamInfo extends TeamInfo {
  /** The one that the client's key or session works in. */
  readonly isCurrent: boolean
}

/** Somebody in a team. */
export interface TeamMember {
  readonly userId: string
  readonly name: string
  readonly email: string
  readonly role: TeamRole
  readonly joinedAt: Date
}

/** An invitation that nobody has accepted yet. */
export interface TeamInvitation {
  readonly id: string
  readonly email: string
  readonly role: TeamRole
  readonly inviterName: string
  readonly timesSent: number
  readonly sentAt: Date
  readonly expiresAt: Date
}

/** What an invited person becomes. */
export interface InviteOptions extends CallOptions {
  /** @default 'member' */
  readonly role?: 'admin' | 'member' | 'viewer'
}

/** Teams and who is in them. Most calls are about the team that the client works in; any other is `team_not_found`. */
export class Teams {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** The teams that you are in; for a key its own. */
  async list(options: CallOptions = {}): Promise<ListedTeamInfo[]> {
    const teams = await this.#transport.json<wire.ListedTeam[]>('GET', '/v1/teams', options)
    return teams.map((each) => ({ ...teamInfo(each), isCurrent: each.current }))
  }

  /** Makes a team, of which you are the owner; for people. */
  async create(name: string, options: CallOptions = {}): Promise<TeamInfo> {
    return teamInfo(await this.#transport.json<wire.Team>('POST', '/v1/teams', { ...options, json: { name } }))
  }

  async rename(teamId: string, name: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('PATCH', team(teamId), { ...options, json: { name } })
  }

  /** Ends a team: its people and keys at once, its capsules and snapshots soon after. */
  async delete(teamId: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', team(teamId), options)
  }

  /** Who has been there for longest first. */
  async members(teamId: string, options: CallOptions = {}): Promise<TeamMember[]> {
    return (await this.#transport.json<wire.MemberOfTeam[]>('GET', `${team(teamId)}/members`, options)).map(member)
  }

  /** Not of the owner. With a lesser role, keys that they made and that may do more end. */
  async changeRole(
    teamId: string,
    userId: string,
    role: 'admin' | 'member' | 'viewer',
    options: CallOptions = {},
  ): Promise<void> {
    await this.#transport.send('PATCH', person(teamId, userId), { ...options, json: { role } })
  }

  /** Removes somebody, with the keys that they made there; not the owner. */
  async remove(teamId: string, userId: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', person(teamId, userId), options)
  }

  async leave(teamId: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('POST', `${team(teamId)}/leave`, options)
  }

  /** Hands the team over to somebody who is in it; you become an admin. */
  async transfer(teamId: string, userId: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('POST', `${team(teamId)}/transfer`, { ...options, json: { user_id: userId } })
  }

  /** Invites somebody by mail. @throws WrennError `conflict` for who is in the team or has an open invitation */
  async invite(teamId: string, email: string, options: InviteOptions = {}): Promise<TeamInvitation> {
    const { role, ...call } = options
    const path = `${team(teamId)}/invitations`
    return invitation(await this.#transport.json<wire.Invitation>('POST', path, { ...call, json: { email, role } }))
  }

  /** Those that nobody has accepted or revoked, newest first. */
  async invitations(teamId: string, options: CallOptions = {}): Promise<TeamInvitation[]> {
    const path = `${team(teamId)}/invitations`
    return (await this.#transport.json<wire.Invitation[]>('GET', path, options)).map(invitation)
  }

  /** Sends an invitation once more, with a new link. */
  async resendInvitation(teamId: string, id: string, options: CallOptions = {}): Promise<TeamInvitation> {
    const path = `${team(teamId)}/invitations/${encodeURIComponent(id)}/resend`
    return invitation(await this.#transport.json<wire.Invitation>('POST', path, options))
  }

  /** Its link leads nowhere any more; repeats succeed. */
  async revokeInvitation(teamId: string, id: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', `${team(teamId)}/invitations/${encodeURIComponent(id)}`, options)
  }

  /** Comes into the team that the code of a mail leads to; for people. */
  async join(code: string, options: CallOptions = {}): Promise<TeamInfo> {
    const json = { token: code }
    return teamInfo(await this.#transport.json<wire.Team>('POST', '/v1/invitations/accept', { ...options, json }))
  }
}

function team(id: string): string {
  return `/v1/teams/${encodeURIComponent(id)}`
}

function person(teamId: string, userId: string): string {
  return `${team(teamId)}/members/${encodeURIComponent(userId)}`
}

function teamInfo({ id, name, slug, role, created_at }: wire.Team): TeamInfo {
  return { id, name, slug, role, createdAt: new Date(created_at) }
}

function member({ user_id, name, email, role, joined_at }: wire.MemberOfTeam): TeamMember {
  return { userId: user_id, name, email, role, joinedAt: new Date(joined_at) }
}

function invitation(row: wire.Invitation): TeamInvitation {
  return {
    id: row.id,
    email: row.email,
    role: row.role,
    inviterName: row.inviter_name,
    timesSent: row.times_sent,
    sentAt: new Date(row.sent_at),
    expiresAt: new Date(row.expires_at),
  }
}
