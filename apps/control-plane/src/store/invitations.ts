import { invitationIds } from '@wrenn/base'
import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import { inSeconds } from './in-seconds.js'
import type { InvitationRow } from './schema.js'

interface NewInvitation {
  readonly teamId: string
  readonly email: string
  readonly role: InvitationRow['role']
  readonly tokenDigest: string
  /** Id of the key or the person. */
  readonly invitedBy: string
  readonly inviterName: string
  readonly lifeSec: number
}

/** Adds an invitation; `undefined` when there is an open one for the address. */
export async function addInvitation(tx: Db, wanted: NewInvitation): Promise<InvitationRow | undefined> {
  return await tx
    .insertInto('invitations')
    .values({
      id: invitationIds.create(),
      team_id: wanted.teamId,
      email: wanted.email,
      role: wanted.role,
      token_digest: wanted.tokenDigest,
      invited_by: wanted.invitedBy,
      inviter_name: wanted.inviterName,
      expires_at: inSeconds(wanted.lifeSec),
    })
    .onConflict((conflict) =>
      conflict
        .columns(['team_id', 'email'])
        .where('accepted_at', 'is', null)
        .where('revoked_at', 'is', null)
        .doNothing(),
    )
    .returningAll()
    .executeTakeFirst()
}

/** Those that nobody has accepted or revoked, newest first; expired ones too. */
export async function listInvitations(db: Db, teamId: string): Promise<InvitationRow[]> {
  return await db
    .selectFrom('invitations')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('accepted_at', 'is', null)
    .where('revoked_at', 'is', null)
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .execute()
}

/** One of a team, whatever has become of it, held until the end of the transaction. */
export async function lockInvitation(tx: Db, teamId: string, id: string): Promise<InvitationRow | undefined> {
  return await tx
    .selectFrom('invitations')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('id', '=', id)
    .forUpdate()
    .executeTakeFirst()
}

/** An open one that has not expired, by its token, held until the end of the transaction. */
export async function lockOpenInvitation(tx: Db, tokenDigest: string): Promise<InvitationRow | undefined> {
  return await tx
    .selectFrom('invitations')
    .selectAll()
    .where('token_digest', '=', tokenDigest)
    .where('accepted_at', 'is', null)
    .where('revoked_at', 'is', null)
    .where('expires_at', '>', sql<Date>`now()`)
    .forUpdate()
    .executeTakeFirst()
}

/** The same invitation with another token, a new time and whoever sends it now; the link before leads nowhere. */
export async function renewInvitation(
  tx: Db,
  id: string,
  { tokenDigest, invitedBy, lifeSec }: Pick<NewInvitation, 'tokenDigest' | 'invitedBy' | 'lifeSec'>,
): Promise<InvitationRow> {
  return await tx
    .updateTable('invitations')
    .set((eb) => ({
      token_digest: tokenDigest,
      invited_by: invitedBy,
      sent: eb('sent', '+', 1),
      sent_at: sql<Date>`now()`,
      expires_at: inSeconds(lifeSec),
    }))
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

export async function endInvitation(tx: Db, id: string, how: 'accepted_at' | 'revoked_at'): Promise<void> {
  await tx
    .updateTable('invitations')
    .set({ [how]: sql<Date>`now()` })
    .where('id', '=', id)
    .execute()
}

/** Forgets those that have led nowhere for a month; the audit trail tells what became of them. */
export async function pruneInvitations(db: Db): Promise<void> {
  await db
    .deleteFrom('invitations')
    .where(sql<SqlBool>`COALESCE(accepted_at, revoked_at, expires_at) < now() - interval '30 days'`)
    .execute()
}
