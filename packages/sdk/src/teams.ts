import type * as wire from '@wrenn/protocol'
import { quota } from './convert.js'
import type { CallOptions, Transport } from './transport.js'
import type { Quota } from './types.js'

const PAGE = 200

/** What somebody is in a team. A newer server may have more. */
export type TeamRole = 'owner' | 'admin' | 'member' | 'viewer' | (string & {})

/** A team that the client's key or session is in. */
export interface TeamInfo {
  readonly id: string
  readonly name: string
  /** Unique; for URLs. */
  readonly slug: string
  /** Whether commands and file operations are in its audit trail. */
  readonly auditsDataAccess: boolean
  readonly role: TeamRole
  readonly createdAt: Date
}

/** One of your teams. */
export interface ListedTeamInfo extends TeamInfo {
  /** The one that the client's key or session works in. */
  readonly isCurrent: boolean
}

/** Limits of one team or plan. `undefined` is what a team's plan, or else the platform gives; 0 is no limit. */
export interface TeamLimits {
  readonly runningCapsules: number | undefined
  /** Of running capsules. */
  readonly vcpus: number | undefined
  /** Of running capsules. */
  readonly memoryMib: number | undefined
  /** Files of capsules, checkpoints and snapshots. */
  readonly poolBytes: number | undefined
  /** Capsules that are being created at a time. */
  readonly creatingCapsules: number | undefined
  /** Of all keys and people of the team, in one minute of the clock. */
  readonly apiCallsPerMin: number | undefined
}

/** Limits with a name, for any number of teams. */
export interface PlanInfo {
  readonly name: string
  readonly limits: TeamLimits
  /** How many have it. */
  readonly teams: number
  readonly createdAt: Date
}

/** Any team of the platform. */
export interface AnyTeamInfo {
  readonly id: string
  readonly name: string
  readonly slug: string
  readonly createdAt: Date
  readonly members: number
  /** Name of its plan; `undefined` for none. */
  readonly plan: string | undefined
  /** Its own, which count before those of its plan. */
  readonly limits: TeamLimits
}

/** Limits to set: what is left out stays, null is what the plan, or else the platform gives, 0 is no limit. */
export interface SetLimitsOptions extends PlanLimits, CallOptions {
  /** Name of a plan; null for none. */
  readonly plan?: string | null
}

/** Limits of a plan: what is left out or null is what the platform gives every team, 0 is no limit. */
export interface PlanLimits {
  readonly runningCapsules?: number | null
  readonly vcpus?: number | null
  readonly memoryMib?: number | null
  readonly poolBytes?: number | null
  readonly creatingCapsules?: number | null
  readonly apiCallsPerMin?: number | null
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
    return teams.map(listedTeamInfo)
  }

  /** Makes a team, of which you are the owner; for people. */
  async create(name: string, options: CallOptions = {}): Promise<TeamInfo> {
    return teamInfo(await this.#transport.json<wire.Team>('POST', '/v1/teams', { ...options, json: { name } }))
  }

  async rename(teamId: string, name: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('PATCH', team(teamId), { ...options, json: { name } })
  }

  /** Says whether commands and file operations inside capsules are in the team's audit trail from now on. */
  async auditDataAccess(teamId: string, isOn: boolean, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('PATCH', team(teamId), { ...options, json: { audit_data_access: isOn } })
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

  /** All teams of the platform, oldest first; for its admins. */
  async *listAll(options: CallOptions = {}): AsyncGenerator<AnyTeamInfo, void> {
    for (let after: string | undefined; ; ) {
      const query = { limit: PAGE, ...(after === undefined ? {} : { after }) }
      const page = await this.#transport.json<wire.AnyTeam[]>('GET', '/v1/admin/teams', { ...options, query })
      yield* page.map(anyTeam)
      after = page.at(-1)?.id
      if (page.length < PAGE) return
    }
  }

  /** What any team uses and may use; for admins of the platform. */
  async quota(teamId: string, options: CallOptions = {}): Promise<Quota> {
    return quota(await this.#transport.json<wire.Quota>('GET', anyQuota(teamId), options))
  }

  /** Sets limits of any team; for admins of the platform. What it uses beyond them goes on, and it starts nothing more. */
  async setLimits(teamId: string, options: SetLimitsOptions): Promise<AnyTeamInfo> {
    const json = { ...wireLimits(options), plan: options.plan }
    return anyTeam(await this.#transport.json<wire.AnyTeam>('PATCH', anyQuota(teamId), { ...options, json }))
  }

  /** By name; for admins of the platform. */
  async plans(options: CallOptions = {}): Promise<PlanInfo[]> {
    return (await this.#transport.json<wire.Plan[]>('GET', '/v1/admin/plans', options)).map(planInfo)
  }

  /** Makes a plan, or gives it these limits and no others; for admins of the platform. */
  async setPlan(name: string, limits: PlanLimits, options: CallOptions = {}): Promise<PlanInfo> {
    return planInfo(
      await this.#transport.json<wire.Plan>('PUT', planPath(name), { ...options, json: wireLimits(limits) }),
    )
  }

  /** @throws WrennError `in_use` while teams have it */
  async deletePlan(name: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', planPath(name), options)
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

/** A team that somebody is in. */
export function listedTeamInfo(team: wire.ListedTeam): ListedTeamInfo {
  return { ...teamInfo(team), isCurrent: team.current }
}

function teamInfo(row: wire.Team): TeamInfo {
  const { id, name, slug, role } = row
  // A server of a version before does not say it.
  const auditsDataAccess = row.audit_data_access ?? false
  return { id, name, slug, auditsDataAccess, role, createdAt: new Date(row.created_at) }
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

function anyQuota(teamId: string): string {
  return `/v1/admin/teams/${encodeURIComponent(teamId)}/quota`
}

function planPath(name: string): string {
  return `/v1/admin/plans/${encodeURIComponent(name)}`
}

function wireLimits(limits: PlanLimits): wire.PutPlanInput {
  return {
    running_capsules: limits.runningCapsules,
    vcpus: limits.vcpus,
    memory_mb: limits.memoryMib,
    pool_bytes: limits.poolBytes,
    creating_capsules: limits.creatingCapsules,
    api_calls_per_min: limits.apiCallsPerMin,
  }
}

function teamLimits(own: wire.TeamQuotaLimits): TeamLimits {
  return {
    runningCapsules: own.running_capsules ?? undefined,
    vcpus: own.vcpus ?? undefined,
    memoryMib: own.memory_mb ?? undefined,
    poolBytes: own.pool_bytes ?? undefined,
    creatingCapsules: own.creating_capsules ?? undefined,
    apiCallsPerMin: own.api_calls_per_min ?? undefined,
  }
}

function planInfo({ name, quota: limits, teams, created_at }: wire.Plan): PlanInfo {
  return { name, limits: teamLimits(limits), teams, createdAt: new Date(created_at) }
}

function anyTeam({ id, name, slug, created_at, members, plan, quota: own }: wire.AnyTeam): AnyTeamInfo {
  return {
    id,
    name,
    slug,
    createdAt: new Date(created_at),
    members,
    plan: plan ?? undefined,
    limits: teamLimits(own),
  }
}
