import { AppError } from '@wrenn/base'
import {
  type Invitation,
  type InviteInput,
  isScope,
  permissionsOf,
  permissionsOfRole,
  type Team,
} from '@wrenn/protocol'
import type { Mailer } from '../../mail/index.js'
import { lockKey } from '../../store/api-keys.js'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import {
  addInvitation,
  endInvitation,
  listInvitations,
  lockInvitation,
  lockOpenInvitation,
  renewInvitation,
} from '../../store/invitations.js'
import { addMember, lockRole } from '../../store/members.js'
import type { Actor, InvitationRow, TeamRow } from '../../store/schema.js'
import { findPerson, findPersonByEmail } from '../../store/team-people.js'
import { holdTeam } from '../../store/teams.js'
import { digestOf, newCode } from '../people/index.js'
import type { Person } from './person.js'
import { teamEntry } from './team-entry.js'
import { noTeam, toTeam } from './teams.js'

const LIFE_SEC = 7 * 24 * 3600
/** Of one team: more are no invitations but an advertisement. */
const MAX_OPEN = 100
/** Of one invitation, the first one too. */
const MAX_SENT = 5

interface InvitationsDeps {
  readonly db: Db
  readonly mailer: Mailer
}

/** How people come into a team: by a mail, and only when they want to. No answer tells whether an address has an account. */
export class Invitations {
  readonly #deps: InvitationsDeps

  constructor(deps: InvitationsDeps) {
    this.#deps = deps
  }

  /** Open ones, newest first. */
  async list(teamId: string): Promise<Invitation[]> {
    return (await listInvitations(this.#deps.db, teamId)).map(toInvitation)
  }

  /** Invites somebody by mail. @throws AppError `conflict` for who is in the team or has an open invitation, `limit_exceeded` */
  async create(teamId: string, { email, role }: InviteInput, actor: Actor, inviterName: string): Promise<Invitation> {
    const token = newCode()
    return await this.#inTeam(teamId, async (tx, team) => {
      if ((await findPersonByEmail(tx, teamId, email)) !== undefined) {
        throw new AppError('conflict', `${email} is in this team already.`)
      }
      const open = await listInvitations(tx, teamId)
      if (open.length >= MAX_OPEN) {
        throw new AppError('limit_exceeded', `The team has ${open.length} open invitations; revoke some.`)
      }
      const row = await addInvitation(tx, {
        teamId,
        email,
        role,
        tokenDigest: digestOf(token),
        invitedBy: actor.id,
        inviterName,
        lifeSec: LIFE_SEC,
      })
      if (row === undefined) {
        throw new AppError('conflict', `There is an open invitation for ${email}: resend or revoke it.`)
      }
      await this.#send(tx, team, row, token)
      await writeAudit(tx, invitationEntry('invitation.create', row, actor))
      return toInvitation(row)
    })
  }

  /** Sends it once more, with a new link and a new time, as the invitation of who does so. @throws AppError `invitation_not_found`, `limit_exceeded` */
  async resend(teamId: string, id: string, actor: Actor): Promise<Invitation> {
    const token = newCode()
    return await this.#inTeam(teamId, async (tx, team) => {
      const row = await needOpen(tx, teamId, id)
      if (row.sent >= MAX_SENT) {
        throw new AppError(
          'limit_exceeded',
          `The invitation was sent ${row.sent} times; revoke it and invite anew if need be.`,
        )
      }
      const renewed = await renewInvitation(tx, id, {
        tokenDigest: digestOf(token),
        invitedBy: actor.id,
        lifeSec: LIFE_SEC,
      })
      await this.#send(tx, team, renewed, token)
      await writeAudit(tx, invitationEntry('invitation.resend', renewed, actor))
      return toInvitation(renewed)
    })
  }

  /** Its link leads nowhere any more; repeats succeed. @throws AppError `invitation_not_found` */
  async revoke(teamId: string, id: string, actor: Actor): Promise<void> {
    await this.#inTeam(teamId, async (tx) => {
      const row = await lockInvitation(tx, teamId, id)
      if (row === undefined || row.accepted_at !== null) throw noInvitation(id)
      if (row.revoked_at !== null) return
      await endInvitation(tx, id, 'revoked_at')
      await writeAudit(tx, invitationEntry('invitation.revoke', row, actor))
    })
  }

  /**
   * Lets who has the link into the team, with an account of the very address that it was sent to, as long as whoever sent it may still invite.
   * @throws AppError `invalid_token`, `forbidden` with another account
   */
  async accept(person: Person, token: string, actor: Actor): Promise<Team> {
    const found = await this.#deps.db
      .selectFrom('invitations')
      .select('team_id')
      .where('token_digest', '=', digestOf(token))
      .executeTakeFirst()
    if (found === undefined) throw invalidToken()
    // The team first, as everywhere: two who wait for each other's rows would wait for ever.
    const enter = async (tx: Db, team: TeamRow): Promise<Team> => {
      const row = await lockOpenInvitation(tx, digestOf(token))
      if (row === undefined || !(await mayStillInvite(tx, row))) throw invalidToken()
      if (row.email !== person.email.toLowerCase()) {
        throw new AppError('forbidden', 'This invitation was sent to another address than that of your account.')
      }
      await addMember(tx, team.id, person.id, row.role)
      await endInvitation(tx, row.id, 'accepted_at')
      await writeAudit(tx, invitationEntry('invitation.accept', row, actor))
      await this.#tellInviter(tx, team, row, person)
      const member = await findPerson(tx, team.id, person.id)
      return toTeam({ ...team, role: member?.role ?? row.role })
    }
    return await this.#inTeam(found.team_id, enter, invalidToken)
  }

  async #inTeam<T>(
    teamId: string,
    task: (tx: Db, team: TeamRow) => Promise<T>,
    whenGone = () => noTeam(teamId),
  ): Promise<T> {
    return await this.#deps.db.transaction().execute(async (tx) => {
      const team = await holdTeam(tx, teamId)
      if (team === undefined) throw whenGone()
      return await task(tx, team)
    })
  }

  async #send(tx: Db, team: TeamRow, row: InvitationRow, token: string): Promise<void> {
    await this.#deps.mailer.send(tx, {
      kind: 'invitation',
      to: row.email,
      inviter: row.inviter_name,
      team: team.name,
      role: row.role,
      token,
      expiresAt: row.expires_at.toISOString(),
    })
  }

  /** Unless a key invited, or who did has left. */
  async #tellInviter(tx: Db, team: TeamRow, { invited_by }: InvitationRow, { name: member }: Person): Promise<void> {
    const inviter = await findPerson(tx, team.id, invited_by)
    if (inviter === undefined) return
    const { email: to, name } = inviter
    await this.#deps.mailer.send(tx, { kind: 'team-joined', to, name, team: team.name, member })
  }
}

/** An admin who was removed could come back by an invitation of their own otherwise. The end of a key's time takes nothing back. */
async function mayStillInvite(tx: Db, { team_id: teamId, invited_by: id }: InvitationRow): Promise<boolean> {
  const role = await lockRole(tx, teamId, id)
  if (role !== undefined) return permissionsOfRole(role).has('team.write')
  const key = await lockKey(tx, teamId, id)
  return key !== undefined && key.revoked_at === null && permissionsOf(key.scopes.filter(isScope)).has('team.write')
}

/** @throws AppError `invitation_not_found` */
async function needOpen(tx: Db, teamId: string, id: string): Promise<InvitationRow> {
  const row = await lockInvitation(tx, teamId, id)
  if (row === undefined || row.accepted_at !== null || row.revoked_at !== null) throw noInvitation(id)
  return row
}

function noInvitation(id: string): AppError {
  return new AppError('invitation_not_found', `The team has no open invitation ${id}.`)
}

function invalidToken(): AppError {
  return new AppError('invalid_token', 'The link is unknown, was used before, or is too old.')
}

function invitationEntry(action: string, { id, team_id, email, role }: InvitationRow, actor: Actor) {
  return teamEntry(action, team_id, actor, { email, role }, { type: 'invitation', id })
}

function toInvitation(row: InvitationRow): Invitation {
  return {
    id: row.id,
    email: row.email,
    role: row.role,
    invited_by: row.invited_by,
    inviter_name: row.inviter_name,
    created_at: row.created_at.toISOString(),
    sent_at: row.sent_at.toISOString(),
    times_sent: row.sent,
    expires_at: row.expires_at.toISOString(),
  }
}
