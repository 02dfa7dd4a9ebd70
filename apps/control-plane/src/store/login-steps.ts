import { sql } from 'kysely'
import type { Db } from './database.js'
import { inSeconds } from './in-seconds.js'
import type { LoginStepRow } from './schema.js'

interface NewLoginStep {
  readonly digest: string
  readonly userId: string
  /** Only from here it goes on. */
  readonly place: string
  readonly restore: boolean
  /** Who told whose it is. */
  readonly provider: string | undefined
  readonly lifeSec: number
}

/** A login that waits for a second factor. Gives its end. */
export async function addLoginStep(tx: Db, step: NewLoginStep): Promise<Date> {
  const { expires_at: expiresAt } = await tx
    .insertInto('login_steps')
    .values({
      digest: step.digest,
      user_id: step.userId,
      place: step.place,
      restore: step.restore,
      provider: step.provider ?? null,
      expires_at: inSeconds(step.lifeSec),
    })
    .returning('expires_at')
    .executeTakeFirstOrThrow()
  return expiresAt
}

function steps(db: Db, digest: string, maxFailures: number) {
  return db
    .selectFrom('login_steps')
    .selectAll()
    .where('digest', '=', digest)
    .where('failures', '<', maxFailures)
    .where('expires_at', '>', sql<Date>`clock_timestamp()`)
}

/** `undefined` when it is unknown, was used, failed too often, or is over. */
export async function findLoginStep(db: Db, digest: string, maxFailures: number): Promise<LoginStepRow | undefined> {
  return await steps(db, digest, maxFailures).executeTakeFirst()
}

/** As {@link findLoginStep}, held until the end of the transaction. */
export async function lockLoginStep(tx: Db, digest: string, maxFailures: number): Promise<LoginStepRow | undefined> {
  return await steps(tx, digest, maxFailures).forUpdate().executeTakeFirst()
}

export async function countFailure(tx: Db, digest: string): Promise<void> {
  await tx
    .updateTable('login_steps')
    .set((eb) => ({ failures: eb('failures', '+', 1) }))
    .where('digest', '=', digest)
    .execute()
}

export async function dropLoginStep(tx: Db, digest: string): Promise<void> {
  await tx.deleteFrom('login_steps').where('digest', '=', digest).execute()
}

/** What somebody has proved by a password that is another one now counts no more. */
export async function dropLoginStepsOf(tx: Db, userId: string): Promise<void> {
  await tx.deleteFrom('login_steps').where('user_id', '=', userId).execute()
}

/** What a passkey is asked to sign, and for what. */
export interface Challenge {
  readonly digest: string
  readonly purpose: 'register' | 'login' | 'second-factor' | 'confirm'
  /** The session, or the login, that it is part of; empty where there is none yet. */
  readonly boundTo: string
}

export async function addChallenge(db: Db, { digest, purpose, boundTo }: Challenge, lifeSec: number): Promise<void> {
  const expiresAt = inSeconds(lifeSec)
  await db
    .insertInto('passkey_challenges')
    .values({ digest, purpose, bound_to: boundTo, expires_at: expiresAt })
    .execute()
}

/** Uses it up. @returns false when it is unknown, was used, is over, or of something else */
export async function takeChallenge(db: Db, { digest, purpose, boundTo }: Challenge): Promise<boolean> {
  const { numDeletedRows } = await db
    .deleteFrom('passkey_challenges')
    .where('digest', '=', digest)
    .where('purpose', '=', purpose)
    .where('bound_to', '=', boundTo)
    .where('expires_at', '>', sql<Date>`clock_timestamp()`)
    .executeTakeFirst()
  return numDeletedRows > 0n
}

/** Forgets those that are over. */
export async function pruneLoginSteps(db: Db): Promise<void> {
  await db.deleteFrom('login_steps').where('expires_at', '<', sql<Date>`now()`).execute()
  await db.deleteFrom('passkey_challenges').where('expires_at', '<', sql<Date>`now()`).execute()
}
