import { passkeyIds } from '@wrenn/base'
import { sql } from 'kysely'
import type { Db } from './database.js'
import type { PasskeyRow, TotpRow } from './schema.js'

/** The authenticator app of somebody, held until the end of the transaction; also one that is not confirmed yet. */
export async function lockTotp(tx: Db, userId: string): Promise<TotpRow | undefined> {
  return await tx.selectFrom('totp_factors').selectAll().where('user_id', '=', userId).forUpdate().executeTakeFirst()
}

/** One that waits to be confirmed takes the place of another that waited. */
export async function putTotp(tx: Db, userId: string, secret: string): Promise<void> {
  await tx
    .insertInto('totp_factors')
    .values({ user_id: userId, secret })
    .onConflict((conflict) => conflict.column('user_id').doUpdateSet({ secret, created_at: sql<Date>`now()` }))
    .execute()
}

interface TotpUse {
  /** The step of the code: no code of it or of an earlier one is good again. */
  readonly lastStep: number
  readonly secret: string
  readonly confirm?: boolean
}

export async function useTotp(tx: Db, userId: string, { lastStep, secret, confirm = false }: TotpUse): Promise<void> {
  await tx
    .updateTable('totp_factors')
    .set({ last_step: lastStep, secret, ...(confirm ? { confirmed_at: sql<Date>`now()` } : {}) })
    .where('user_id', '=', userId)
    .execute()
}

/** What somebody has beside a password. */
export interface Factors {
  /** `undefined`: no authenticator app, or one that was never confirmed. */
  readonly totpSince: Date | undefined
  /** Oldest first. */
  readonly passkeys: readonly PasskeyRow[]
  /** That were not used. */
  readonly recoveryCodes: number
}

export async function findFactors(db: Db, userId: string): Promise<Factors> {
  const totp = await db
    .selectFrom('totp_factors')
    .select('confirmed_at')
    .where('user_id', '=', userId)
    .executeTakeFirst()
  const passkeys = await db
    .selectFrom('passkeys')
    .selectAll()
    .where('user_id', '=', userId)
    .orderBy('created_at')
    .orderBy('id')
    .execute()
  const { count } = await db
    .selectFrom('recovery_codes')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('user_id', '=', userId)
    .where('used_at', 'is', null)
    .executeTakeFirstOrThrow()
  return { totpSince: totp?.confirmed_at ?? undefined, passkeys, recoveryCodes: count }
}

/** Other codes in the place of all that there were. */
export async function putRecoveryCodes(tx: Db, userId: string, digests: readonly string[]): Promise<void> {
  await tx.deleteFrom('recovery_codes').where('user_id', '=', userId).execute()
  if (digests.length === 0) return
  const rows = digests.map((digest) => ({ user_id: userId, digest }))
  await tx.insertInto('recovery_codes').values(rows).execute()
}

/** @returns false when there is no such code, or it was used before */
export async function useRecoveryCode(tx: Db, userId: string, digest: string): Promise<boolean> {
  const { numUpdatedRows } = await tx
    .updateTable('recovery_codes')
    .set({ used_at: sql<Date>`now()` })
    .where('user_id', '=', userId)
    .where('digest', '=', digest)
    .where('used_at', 'is', null)
    .executeTakeFirst()
  return numUpdatedRows > 0n
}

export async function dropTotp(tx: Db, userId: string): Promise<boolean> {
  const { numDeletedRows } = await tx.deleteFrom('totp_factors').where('user_id', '=', userId).executeTakeFirst()
  return numDeletedRows > 0n
}

interface NewPasskey {
  readonly credentialId: string
  readonly userId: string
  readonly name: string
  /** COSE, base64url. */
  readonly publicKey: string
  readonly counter: number
  readonly transports: readonly string[]
  readonly backedUp: boolean
}

/** `undefined` when the same passkey is there already, whoever has it. */
export async function addPasskey(tx: Db, passkey: NewPasskey): Promise<PasskeyRow | undefined> {
  return await tx
    .insertInto('passkeys')
    .values({
      id: passkeyIds.create(),
      credential_id: passkey.credentialId,
      user_id: passkey.userId,
      name: passkey.name,
      public_key: passkey.publicKey,
      counter: passkey.counter,
      transports: passkey.transports,
      backed_up: passkey.backedUp,
    })
    .onConflict((conflict) => conflict.column('credential_id').doNothing())
    .returningAll()
    .executeTakeFirst()
}

/** Held until the end of the transaction: its counter only grows. */
export async function lockPasskey(tx: Db, id: string): Promise<PasskeyRow | undefined> {
  return await tx.selectFrom('passkeys').selectAll().where('id', '=', id).forUpdate().executeTakeFirst()
}

/** By the id that its authenticator gave it. */
export async function findPasskey(db: Db, credentialId: string): Promise<PasskeyRow | undefined> {
  return await db.selectFrom('passkeys').selectAll().where('credential_id', '=', credentialId).executeTakeFirst()
}

export async function usePasskey(tx: Db, id: string, counter: number, backedUp: boolean): Promise<void> {
  await tx
    .updateTable('passkeys')
    .set({ counter, backed_up: backedUp, last_used_at: sql<Date>`now()` })
    .where('id', '=', id)
    .execute()
}

export async function renamePasskey(tx: Db, userId: string, id: string, name: string): Promise<PasskeyRow | undefined> {
  return await tx
    .updateTable('passkeys')
    .set({ name })
    .where('id', '=', id)
    .where('user_id', '=', userId)
    .returningAll()
    .executeTakeFirst()
}

export async function dropPasskey(tx: Db, userId: string, id: string): Promise<PasskeyRow | undefined> {
  return await tx
    .deleteFrom('passkeys')
    .where('id', '=', id)
    .where('user_id', '=', userId)
    .returningAll()
    .executeTakeFirst()
}

/** All of them, with the codes and the logins that wait for one. */
export async function dropFactors(tx: Db, userId: string): Promise<void> {
  for (const table of ['totp_factors', 'passkeys', 'recovery_codes', 'login_steps'] as const) {
    await tx.deleteFrom(table).where('user_id', '=', userId).execute()
  }
}
