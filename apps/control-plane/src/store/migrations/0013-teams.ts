import { type Kysely, sql } from 'kysely'

/** Teams get a name for URLs, an end, and invitations. Those that are there get a slug each. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE teams
    ADD COLUMN slug text NOT NULL DEFAULT
      substr(md5(gen_random_uuid()::text), 1, 6) || '-' || substr(md5(gen_random_uuid()::text), 1, 6),
    ADD COLUMN deleted_at timestamptz,
    ADD COLUMN swept_at timestamptz`.execute(db)
  await sql`CREATE UNIQUE INDEX teams_slug ON teams (slug)`.execute(db)
  await sql`CREATE INDEX teams_to_sweep ON teams (deleted_at) WHERE deleted_at IS NOT NULL AND swept_at IS NULL`.execute(
    db,
  )
  await sql`CREATE UNIQUE INDEX team_members_owner ON team_members (team_id) WHERE role = 'owner'`.execute(db)
  await sql`CREATE TABLE invitations (
    id text PRIMARY KEY,
    team_id text NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    email text NOT NULL,
    role text NOT NULL CHECK (role IN ('admin', 'member', 'viewer')),
    token_digest text NOT NULL UNIQUE,
    invited_by text NOT NULL,
    inviter_name text NOT NULL,
    sent int NOT NULL DEFAULT 1,
    sent_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    accepted_at timestamptz,
    revoked_at timestamptz
  )`.execute(db)
  await sql`CREATE UNIQUE INDEX invitations_open ON invitations (team_id, email)
    WHERE accepted_at IS NULL AND revoked_at IS NULL`.execute(db)
}

/** Forgets teams that were deleted, with all that they had: the version before would show them. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE invitations`.execute(db)
  await sql`DROP INDEX team_members_owner`.execute(db)
  await sql`UPDATE api_keys SET revoked_at = now() WHERE revoked_at IS NULL
    AND team_id IN (SELECT id FROM teams WHERE deleted_at IS NOT NULL)`.execute(db)
  await sql`ALTER TABLE teams DROP COLUMN slug, DROP COLUMN deleted_at, DROP COLUMN swept_at`.execute(db)
}
