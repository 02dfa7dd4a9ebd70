import { type Kysely, sql } from 'kysely'

/** What the link carries that finishes the set-up: there is at most one, by digest. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE set_up_codes (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    digest text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
  )`.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE set_up_codes`.execute(db)
}
