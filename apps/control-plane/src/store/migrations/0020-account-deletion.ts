import { type Kysely, sql } from 'kysely'

/**
 * Accounts can be deleted: `deleted_at` says when that was asked for, `erase_at` until when it can be taken back, and `erased_at` that nothing
 * of the person is left. Sessions know when their person last proved who they are; those that are there have not.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE users ADD COLUMN erase_at timestamptz, ADD COLUMN erased_at timestamptz`.execute(db)
  await sql`CREATE INDEX users_to_erase ON users (erase_at) WHERE erase_at IS NOT NULL AND erased_at IS NULL`.execute(
    db,
  )
  await sql`DROP INDEX users_email`.execute(db)
  await sql`CREATE UNIQUE INDEX users_email ON users (lower(email)) WHERE erased_at IS NULL`.execute(db)
  await sql`ALTER TABLE sessions ADD COLUMN confirmed_at timestamptz NOT NULL DEFAULT 'epoch'`.execute(db)
  await sql`ALTER TABLE sessions ALTER COLUMN confirmed_at SET DEFAULT now()`.execute(db)
}

/** Accounts that wait to be erased are erased by no version before: they stay, disabled. Of erased ones the rows go. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DELETE FROM users WHERE erased_at IS NOT NULL`.execute(db)
  await sql`UPDATE users SET status = 'disabled' WHERE deleted_at IS NOT NULL AND status = 'active'`.execute(db)
  await sql`DROP INDEX users_email`.execute(db)
  await sql`CREATE UNIQUE INDEX users_email ON users (lower(email))`.execute(db)
  await sql`DROP INDEX users_to_erase`.execute(db)
  await sql`ALTER TABLE users DROP COLUMN erase_at, DROP COLUMN erased_at`.execute(db)
  await sql`ALTER TABLE sessions DROP COLUMN confirmed_at`.execute(db)
}
