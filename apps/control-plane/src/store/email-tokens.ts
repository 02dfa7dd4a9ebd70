import { sql } from 'kysely'
import type { Db } from './database.js'
import type { EmailTokensTable } from './schema.js'

type Kind = EmailTokensTable['kind']

interface NewEmailToken {
  readonly digest: string
  readonly kind: Kind
  readonly userId: string
  readonly lifeSec: number
}

/** What a link in a mail carries; those of the same kind before it are no good any more. Gives its end. */
export async function addEmailToken(tx: Db, { digest, kind, userId, lifeSec }: NewEmailToken): Promise<Date> {
  await dropEmailTokens(tx, userId, kind)
  const { expires_at: expiresAt } = await tx
    .insertInto('email_tokens')
    .values({ digest, kind, user_id: userId, expires_at: sql<Date>`now() + ${lifeSec} * interval '1 second'` })
    .returning('expires_at')
    .executeTakeFirstOrThrow()
  return expiresAt
}

/** Uses it up; gives whose it was, `undefined` when it is unknown, used or over. */
export async function useEmailToken(tx: Db, digest: string, kind: Kind): Promise<string | undefined> {
  const used = await tx
    .updateTable('email_tokens')
    .set({ used_at: sql<Date>`now()` })
    .where('digest', '=', digest)
    .where('kind', '=', kind)
    .where('used_at', 'is', null)
    .where('expires_at', '>', sql<Date>`now()`)
    .returning('user_id')
    .executeTakeFirst()
  return used?.user_id
}

/** Links of this kind that somebody still has lead nowhere any more. */
export async function dropEmailTokens(tx: Db, userId: string, kind: Kind): Promise<void> {
  await tx.deleteFrom('email_tokens').where('user_id', '=', userId).where('kind', '=', kind).execute()
}
