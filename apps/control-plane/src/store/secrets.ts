import { secretIds } from '@wrenn/base'
import { type SqlBool, sql } from 'kysely'
import { type Db, inTransaction } from './database.js'
import type { SecretRow } from './schema.js'

interface NewSecret extends Pick<SecretRow, 'id' | 'name' | 'value' | 'metadata'> {
  readonly teamId: string
}

/** An id for a secret: its value is encrypted for it before it is there. */
export const newSecretId = (): string => secretIds.create()

const ofTeam = (db: Db, teamId: string) =>
  db.selectFrom('secrets').selectAll().where('team_id', '=', teamId).where('deleted_at', 'is', null)

/** Adds a secret; `undefined` when the team has one of this name. */
export async function addSecret(tx: Db, { teamId, metadata, ...secret }: NewSecret): Promise<SecretRow | undefined> {
  return await tx
    .insertInto('secrets')
    .values({ ...secret, team_id: teamId, metadata: JSON.stringify(metadata) })
    .onConflict((conflict) => conflict.columns(['team_id', 'name']).where('deleted_at', 'is', null).doNothing())
    .returningAll()
    .executeTakeFirst()
}

export async function countSecrets(db: Db, teamId: string): Promise<number> {
  const { count } = await db
    .selectFrom('secrets')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('team_id', '=', teamId)
    .where('deleted_at', 'is', null)
    .executeTakeFirstOrThrow()
  return count
}

/** A page by name, after `afterName`. */
export async function listSecrets(
  db: Db,
  teamId: string,
  { afterName, limit }: { readonly afterName: string | undefined; readonly limit: number },
): Promise<SecretRow[]> {
  const all = ofTeam(db, teamId)
  const rest = afterName === undefined ? all : all.where('name', '>', afterName)
  return await rest.orderBy('name').limit(limit).execute()
}

/** Those of these names. */
export async function findSecretsNamed(db: Db, teamId: string, names: readonly string[]): Promise<SecretRow[]> {
  return names.length === 0 ? [] : await ofTeam(db, teamId).where('name', 'in', names).execute()
}

/** By its id or its name, which no secret shares with the id of another. */
export async function findSecret(db: Db, teamId: string, idOrName: string): Promise<SecretRow | undefined> {
  const isIt = sql<SqlBool>`${idOrName} IN (id, name)`
  return await ofTeam(db, teamId).where(isIt).executeTakeFirst()
}

/** The next version of a secret; what is `undefined` stays. @returns `undefined` when it is gone */
export async function replaceSecret(
  tx: Db,
  id: string,
  { value, metadata }: { readonly value: string; readonly metadata: Readonly<Record<string, string>> | undefined },
): Promise<SecretRow | undefined> {
  return await tx
    .updateTable('secrets')
    .set((eb) => ({
      value,
      ...(metadata && { metadata: JSON.stringify(metadata) }),
      version: eb('version', '+', 1),
      updated_at: sql<Date>`now()`,
    }))
    .where('id', '=', id)
    .where('deleted_at', 'is', null)
    .returningAll()
    .executeTakeFirst()
}

/** Its value is gone at once; the rest goes when all were told. @returns `undefined` when it is gone */
export async function dropSecret(tx: Db, id: string): Promise<SecretRow | undefined> {
  return await tx
    .updateTable('secrets')
    .set((eb) => ({ value: '', deleted_at: sql<Date>`now()`, version: eb('version', '+', 1) }))
    .where('id', '=', id)
    .where('deleted_at', 'is', null)
    .returningAll()
    .executeTakeFirst()
}

/** Secrets that have changed since capsules whose rules refer to them were last noted. */
export async function findUntoldSecrets(db: Db, limit: number): Promise<SecretRow[]> {
  return await db.selectFrom('secrets').selectAll().where(sql<SqlBool>`told_version < version`).limit(limit).execute()
}

/**
 * Makes the policies newer of all capsules whose rules refer to a secret, so that their hosts are told them again; one that was deleted is then
 * forgotten. The change has to be committed: a capsule that comes to refer to the secret meanwhile is told its new value by whoever makes it.
 */
export async function noteSecretChanged(db: Db, { id, team_id: teamId, name, version }: SecretRow): Promise<void> {
  await inTransaction(db, async (tx) => {
    // In one order: two that are noted at once may have capsules in common.
    const held = await tx
      .selectFrom('capsules')
      .select('id')
      .where('team_id', '=', teamId)
      .where(sql<SqlBool>`secret_names @> ARRAY[${name}]::text[]`)
      .where('state', 'not in', ['stopping', 'stopped'])
      .orderBy('id')
      .forNoKeyUpdate()
      .execute()
    if (held.length > 0) {
      await tx
        .updateTable('capsules')
        .set({ egress_revision: sql<number>`greatest(egress_revision, egress_in_force) + 1` })
        .where(sql<SqlBool>`id = ANY(${held.map((capsule) => capsule.id)}::text[])`)
        .execute()
    }
    const told = tx.updateTable('secrets').set({ told_version: version })
    await told.where('id', '=', id).where('told_version', '<', version).execute()
    await tx
      .deleteFrom('secrets')
      .where('id', '=', id)
      .where('deleted_at', 'is not', null)
      .where(sql<SqlBool>`told_version >= version`)
      .execute()
  })
}

/** Secrets that are not encrypted by the key of this prefix. */
export async function findSecretsSealedOtherwise(db: Db, prefix: string): Promise<SecretRow[]> {
  return await db
    .selectFrom('secrets')
    .selectAll()
    .where('deleted_at', 'is', null)
    .where(sql<SqlBool>`not starts_with(value, ${prefix})`)
    .execute()
}

/** The same value under another key, unless it was replaced meanwhile. */
export async function resealSecret(db: Db, { id, value }: Pick<SecretRow, 'id' | 'value'>, sealed: string) {
  await db.updateTable('secrets').set({ value: sealed }).where('id', '=', id).where('value', '=', value).execute()
}
