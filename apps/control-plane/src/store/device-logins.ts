import { type Selectable, sql } from 'kysely'
import type { Db } from './database.js'
import { inSeconds } from './in-seconds.js'
import type { DeviceLoginsTable } from './schema.js'

/** A program that waits for a person, as queries give it. */
export type DeviceLoginRow = Selectable<DeviceLoginsTable>

interface NewDeviceLogin {
  readonly digest: string
  readonly userCode: string
  /** What the program says of itself. */
  readonly client: string
  readonly ip: string
  readonly lifeSec: number
}

/** Gives its end; `undefined` when another one has this code for people. */
export async function addDeviceLogin(db: Db, login: NewDeviceLogin): Promise<Date | undefined> {
  const added = await db
    .insertInto('device_logins')
    .values({
      digest: login.digest,
      user_code: login.userCode,
      client: login.client,
      ip: login.ip,
      expires_at: inSeconds(login.lifeSec),
    })
    .onConflict((conflict) => conflict.column('user_code').doNothing())
    .returning('expires_at')
    .executeTakeFirst()
  return added?.expires_at
}

/** One that nobody has decided about, by its code for people. */
export async function findUndecided(db: Db, userCode: string): Promise<DeviceLoginRow | undefined> {
  return await db
    .selectFrom('device_logins')
    .selectAll()
    .where('user_code', '=', userCode)
    .where('decided_by', 'is', null)
    .where('expires_at', '>', sql<Date>`now()`)
    .executeTakeFirst()
}

/** Decides once. `undefined` when there is nothing to decide any more. */
export async function decideDeviceLogin(
  tx: Db,
  userCode: string,
  { sessionId, denied }: { readonly sessionId: string; readonly denied: boolean },
): Promise<DeviceLoginRow | undefined> {
  return await tx
    .updateTable('device_logins')
    .set({ decided_by: sessionId, denied })
    .where('user_code', '=', userCode)
    .where('decided_by', 'is', null)
    .where('expires_at', '>', sql<Date>`now()`)
    .returningAll()
    .executeTakeFirst()
}

/** What a waiting program is told. */
export async function findDeviceLogin(db: Db, digest: string): Promise<DeviceLoginRow | undefined> {
  return await db
    .selectFrom('device_logins')
    .selectAll()
    .where('digest', '=', digest)
    .where('expires_at', '>', sql<Date>`now()`)
    .executeTakeFirst()
}

/** Who let a program in, by a session that still goes on, and where they worked then. */
export interface Approval {
  readonly userId: string
  readonly teamId: string
}

/** Whose session has decided about a program, whatever it decided. */
export async function findApprover(tx: Db, digest: string): Promise<string | undefined> {
  const found = await tx
    .selectFrom('device_logins as d')
    .innerJoin('sessions as s', 's.id', 'd.decided_by')
    .select('s.user_id')
    .where('d.digest', '=', digest)
    .executeTakeFirst()
  return found?.user_id
}

/** Uses an approval up; `undefined` when there is none, or the session that gave it is over. */
export async function takeApproval(tx: Db, digest: string): Promise<Approval | undefined> {
  const taken = await tx
    .deleteFrom('device_logins as d')
    .using('sessions as s')
    .whereRef('s.id', '=', 'd.decided_by')
    .where('d.digest', '=', digest)
    .where('d.denied', '=', false)
    .where('d.expires_at', '>', sql<Date>`now()`)
    .where('s.revoked_at', 'is', null)
    .where('s.expires_at', '>', sql<Date>`now()`)
    .returning(['s.user_id', 's.team_id'])
    .executeTakeFirst()
  return taken === undefined ? undefined : { userId: taken.user_id, teamId: taken.team_id }
}

/** Forgets those that are over. */
export async function pruneDeviceLogins(db: Db): Promise<void> {
  await db.deleteFrom('device_logins').where('expires_at', '<', sql<Date>`now()`).execute()
}
