import { sql } from 'kysely'
import type { Db } from './database.js'
import { inSeconds } from './in-seconds.js'
import type { EmailTokensTable } from './schema.js'

type Kind = EmailTokensTable['kind']

interface NewEmailToken {
  readonly digest: string
  readonly kind: Kind
  readonly userId: string
  readonly lifeSec: number
  readonly wish?: SignUpWish
}

/** What a sign-up asks for, which counts when its own link is followed. */
export interface SignUpWish {
  readonly name: string
  readonly passwordHash: string
}

/** What a link carried. */
export interface UsedToken {
  readonly userId: string
  readonly wish: SignUpWish | undefined
}

/** What a link in a mail carries. Gives its end. */
export async function addEmailToken(tx: Db, { digest, kind, userId, lifeSec, wish }: NewEmailToken): Promise<Date> {
  const { expires_at: expiresAt } = await tx
    .insertInto('email_tokens')
    .values({
      digest,
      kind,
      user_id: userId,
      name: wish?.name ?? null,
      password_hash: wish?.passwordHash ?? null,
      expires_at: inSeconds(lifeSec),
    })
    .returning('expires_at')
    .executeTakeFirstOrThrow()
  return expiresAt
}

/** Uses it up; `undefined` when it is unknown, used or over. */
export async function useEmailToken(tx: Db, digest: string, kind: Kind): Promise<UsedToken | undefined> {
  const used = await tx
    .updateTable('email_tokens')
    .set({ used_at: sql<Date>`now()` })
    .where('digest', '=', digest)
    .where('kind', '=', kind)
    .where('used_at', 'is', null)
    .where('expires_at', '>', sql<Date>`now()`)
    .returning(['user_id', 'name', 'password_hash'])
    .executeTakeFirst()
  if (used === undefined) return undefined
  const { user_id: userId, name, password_hash: passwordHash } = used
  return { userId, wish: name === null || passwordHash === null ? undefined : { name, passwordHash } }
}

/** Links of this kind that somebody still has lead nowhere any more. */
export async function dropEmailTokens(tx: Db, userId: string, kind: Kind): Promise<void> {
  await tx.deleteFrom('email_tokens').where('user_id', '=', userId).where('kind', '=', kind).execute()
}
