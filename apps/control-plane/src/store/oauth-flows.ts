import { type Selectable, sql } from 'kysely'
import type { Db } from './database.js'
import { inSeconds } from './in-seconds.js'
import type { OauthCodesTable, OauthFlowsTable } from './schema.js'

/** A sign-in that is under way, as queries give it. */
export type OauthFlowRow = Selectable<OauthFlowsTable>

/** Remembers a sign-in that goes to its provider. */
export async function addOauthFlow(
  db: Db,
  { lifeSec, ...flow }: Omit<OauthFlowRow, 'expires_at'> & { readonly lifeSec: number },
): Promise<void> {
  await db
    .insertInto('oauth_flows')
    .values({ ...flow, expires_at: inSeconds(lifeSec) })
    .execute()
}

/** Uses a state up; `undefined` when this browser has begun no such sign-in, or it has come back already. */
export async function takeOauthFlow(db: Db, digest: string, browser: string): Promise<OauthFlowRow | undefined> {
  return await db
    .deleteFrom('oauth_flows')
    .where('digest', '=', digest)
    .where('browser', '=', browser)
    .where('expires_at', '>', sql<Date>`now()`)
    .returningAll()
    .executeTakeFirst()
}

/** Remembers that a browser may fetch a session. */
export async function addOauthCode(
  tx: Db,
  { lifeSec, ...code }: Omit<Selectable<OauthCodesTable>, 'expires_at'> & { readonly lifeSec: number },
): Promise<void> {
  await tx
    .insertInto('oauth_codes')
    .values({ ...code, expires_at: inSeconds(lifeSec) })
    .execute()
}

/** Whose session a code is for, used already or not. */
export async function findCodeHolder(db: Db, digest: string): Promise<string | undefined> {
  const found = await db
    .selectFrom('oauth_codes as c')
    .innerJoin('oauth_identities as i', (join) =>
      join
        .onRef('i.provider', '=', 'c.provider')
        .onRef('i.issuer', '=', 'c.issuer')
        .onRef('i.subject', '=', 'c.subject'),
    )
    .select('i.user_id')
    .where('c.digest', '=', digest)
    .executeTakeFirst()
  return found?.user_id
}

/** Uses a code up; `undefined` when it is not this browser's, or too old. @returns the provider of its sign-in */
export async function takeOauthCode(tx: Db, digest: string, browser: string): Promise<string | undefined> {
  const taken = await tx
    .deleteFrom('oauth_codes')
    .where('digest', '=', digest)
    .where('browser', '=', browser)
    .where('expires_at', '>', sql<Date>`now()`)
    .returning('provider')
    .executeTakeFirst()
  return taken?.provider
}

/** Forgets those that are over. */
export async function pruneOauth(db: Db): Promise<void> {
  await db.deleteFrom('oauth_flows').where('expires_at', '<', sql<Date>`now()`).execute()
  await db.deleteFrom('oauth_codes').where('expires_at', '<', sql<Date>`now()`).execute()
}
