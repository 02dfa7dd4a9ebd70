import type { Db } from './database.js'
import type { OauthIdentitiesTable, UserRow } from './schema.js'

/** What names a person at a provider, for good. */
export type IdentityKey = Pick<OauthIdentitiesTable, 'provider' | 'issuer' | 'subject'>

/** The account that is connected with it, whatever its state. */
export async function findUserByIdentity(
  db: Db,
  { provider, issuer, subject }: IdentityKey,
): Promise<UserRow | undefined> {
  return await db
    .selectFrom('oauth_identities as i')
    .innerJoin('users as u', 'u.id', 'i.user_id')
    .selectAll('u')
    .where('i.provider', '=', provider)
    .where('i.issuer', '=', issuer)
    .where('i.subject', '=', subject)
    .executeTakeFirst()
}

/** Connects an account. False when the identity is somebody's already, or the account has another one of this provider. */
export async function addIdentity(
  tx: Db,
  { provider, issuer, subject }: IdentityKey,
  userId: string,
): Promise<boolean> {
  const added = await tx
    .insertInto('oauth_identities')
    .values({ provider, issuer, subject, user_id: userId })
    .onConflict((conflict) => conflict.doNothing())
    .returning('user_id')
    .executeTakeFirst()
  return added !== undefined
}

/** Ids of the providers that an account is connected with, in the order in which it was. */
export async function listProvidersOf(db: Db, userId: string): Promise<string[]> {
  const rows = await db
    .selectFrom('oauth_identities')
    .select('provider')
    .where('user_id', '=', userId)
    .orderBy('created_at')
    .orderBy('provider')
    .execute()
  return rows.map(({ provider }) => provider)
}

/** Disconnects an account. Codes of its sign-ins by this provider are good no more. */
export async function removeIdentity(tx: Db, userId: string, provider: string): Promise<void> {
  await tx.deleteFrom('oauth_identities').where('user_id', '=', userId).where('provider', '=', provider).execute()
}
