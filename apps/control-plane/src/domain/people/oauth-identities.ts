import { AppError } from '@wrenn/base'
import type { OauthError } from '@wrenn/protocol'
import type { SignUpRule } from '../../config.js'
import type { Identity } from '../../identity/index.js'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { dropEmailTokens } from '../../store/email-tokens.js'
import { addIdentity, findUserByIdentity, listProvidersOf, removeIdentity } from '../../store/oauth-identities.js'
import type { UserRow } from '../../store/schema.js'
import { findSessionHolder, lockSession } from '../../store/sessions.js'
import { dropSetUpCode } from '../../store/set-up-codes.js'
import { addUser, changeUser, countActive, findUserByEmail, lockPeople, lockUser } from '../../store/users.js'
import type { UserPrincipal } from '../accounts/index.js'
import { type From, personActor } from './from.js'
import { homeTeamOf } from './home-team.js'
import { refuseSignUp } from './sign-up-rule.js'
import { findOrFoundTeam } from './teams.js'

/** A sign-in that comes to nothing, and the account that it would have been of, as far as there is one. */
export class OauthRefusal extends Error {
  readonly code: OauthError
  readonly user: UserRow | undefined

  constructor(code: OauthError, user?: UserRow) {
    super(code)
    this.name = 'OauthRefusal'
    this.code = code
    this.user = user
  }
}

/**
 * The account of an identity. One with the same mail address is never taken for it: providers give addresses away anew, and who says
 * that an address is verified is not who owns the account.
 * @throws OauthRefusal `account_deactivated`, `email_taken`, `no_account`
 */
export async function accountOf(db: Db, identity: Identity): Promise<UserRow> {
  const user = await findUserByIdentity(db, identity)
  if (user !== undefined) {
    // One that its owner has deleted can be taken back for a time.
    if (user.status === 'active') return user
    throw new OauthRefusal('account_deactivated', user)
  }
  const { verifiedEmail } = identity
  const other = verifiedEmail === undefined ? undefined : await findUserByEmail(db, verifiedEmail)
  throw other === undefined ? new OauthRefusal('no_account') : new OauthRefusal('email_taken', other)
}

/**
 * Makes an active account for an identity, or finds the one that there is. The first one is admin of the platform, as ever.
 * @throws OauthRefusal `account_deactivated`, `email_unverified`, `email_taken`, `signup_closed`
 */
export async function signUpWith(tx: Db, identity: Identity, rule: SignUpRule, from: From): Promise<UserRow> {
  await lockPeople(tx)
  const there = await findUserByIdentity(tx, identity)
  if (there !== undefined) {
    if (there.status === 'active') return there
    throw new OauthRefusal('account_deactivated', there)
  }
  const { verifiedEmail: email, name, provider } = identity
  if (email === undefined) throw new OauthRefusal('email_unverified')
  const other = await findUserByEmail(tx, email)
  if (other !== undefined && !isUnproven(other)) throw new OauthRefusal('email_taken', other)
  try {
    await refuseSignUp(tx, rule, email)
  } catch (error) {
    throw AppError.is(error, 'forbidden') ? new OauthRefusal('signup_closed') : error
  }
  const isFirst = (await countActive(tx)).all === 0
  const called = name === '' ? email.slice(0, email.indexOf('@')) : name
  const { id } = other ?? (await addUser(tx, { email, name: called }))
  if (other !== undefined) await dropEmailTokens(tx, id, 'activation')
  const fields = { status: 'active', name: called, password_hash: null } as const
  const user = await changeUser(tx, id, { ...fields, ...(isFirst ? { is_admin: true } : {}) })
  if (user === undefined) throw new Error('an account is gone that was made in this transaction')
  if (isFirst) await dropSetUpCode(tx)
  const { teamId } = await findOrFoundTeam(tx, user, isFirst)
  if (!(await addIdentity(tx, identity, id))) throw new OauthRefusal('already_linked')
  await writeAudit(tx, entryOf('user.sign_up', user, from, { teamId, provider }))
  return user
}

/** Signed up with a password, by whoever typed the address: its owner, who has come by a provider now, or somebody else. */
function isUnproven({ status, deleted_at, password_hash }: UserRow): boolean {
  return status === 'pending' && deleted_at === null && password_hash !== null
}

/**
 * Connects the account of a session that still goes on. One that is connected with this identity already stays so.
 * @returns the account, unless it was connected before
 * @throws OauthRefusal `invalid_state` when the session is over, `already_linked`
 */
export async function link(tx: Db, identity: Identity, sessionId: string, from: From): Promise<UserRow | undefined> {
  const holder = await findSessionHolder(tx, sessionId)
  const user = holder === undefined ? undefined : await lockUser(tx, holder)
  const session = await lockSession(tx, sessionId)
  if (user?.status !== 'active' || user.deleted_at !== null || session === undefined)
    throw new OauthRefusal('invalid_state')
  if (await addIdentity(tx, identity, user.id)) {
    const { team_id: teamId } = session
    await writeAudit(tx, entryOf('user.connect_provider', user, from, { teamId, provider: identity.provider }))
    return user
  }
  if ((await findUserByIdentity(tx, identity))?.id === user.id) return undefined
  throw new OauthRefusal('already_linked', user)
}

/**
 * Disconnects an account from a provider.
 * @param requireOne refuses who has no other way to sign in
 * @returns the account
 * @throws AppError `provider_not_found` when it is not connected, `last_login_method`
 */
export async function unlink(
  tx: Db,
  { id, teamId }: UserPrincipal,
  provider: string,
  requireOne: (tx: Db, user: UserRow) => Promise<void>,
  from: From,
): Promise<UserRow> {
  const user = await lockUser(tx, id)
  const connected = await listProvidersOf(tx, id)
  if (user === undefined || !connected.includes(provider)) {
    throw new AppError('provider_not_found', `Your account is not connected with ${provider}.`)
  }
  await removeIdentity(tx, id, provider)
  await requireOne(tx, user)
  await writeAudit(tx, entryOf('user.disconnect_provider', user, from, { teamId, provider }))
  return user
}

/** Tells of a sign-in or link that came to nothing. */
export async function writeFailure(
  db: Db,
  { code, user }: OauthRefusal,
  { provider, isLink, email }: { provider: string; isLink: boolean; email: string | undefined },
  from: From,
): Promise<void> {
  await writeAudit(db, {
    teamId: await homeTeamOf(db, user?.id),
    // Who it is of, nobody knows; the address is what the provider has said.
    actor: personActor({ id: user?.id ?? '', email: email ?? user?.email ?? '' }, from),
    action: isLink ? 'user.connect_provider' : 'session.login',
    resource: { type: 'user', id: user?.id ?? '' },
    scope: 'admin',
    outcome: 'failure',
    details: { provider, error: code },
  })
}

function entryOf(
  action: string,
  user: UserRow,
  from: From,
  { teamId, provider }: { readonly teamId: string; readonly provider: string },
) {
  const [resource, actor] = [{ type: 'user', id: user.id } as const, personActor(user, from)]
  return { teamId, actor, action, resource, scope: 'admin', details: { provider } } as const
}
