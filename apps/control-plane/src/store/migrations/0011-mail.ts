import { type Kysely, sql } from 'kysely'

/** Mails that wait to be sent. A row goes when its mail was taken, and loses its data when that is given up. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE mails (
    id text PRIMARY KEY,
    recipient text NOT NULL,
    kind text NOT NULL,
    data jsonb,
    attempts int NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    given_up_at timestamptz,
    reason text,
    CHECK ((given_up_at IS NULL) = (data IS NOT NULL))
  )`.execute(db)
  await sql`CREATE INDEX mails_waiting ON mails (next_at) WHERE given_up_at IS NULL`.execute(db)
}

/** Mails that were not sent yet never are. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE mails`.execute(db)
}
