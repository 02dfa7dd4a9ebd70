import { type Kysely, sql } from 'kysely'

/** Builds of templates and what they say; snapshots that are theirs alone; what links for uploads are signed with. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE snapshots
    ADD COLUMN hidden boolean NOT NULL DEFAULT false,
    ADD COLUMN build_id text,
    ADD COLUMN layer_hash text,
    ADD COLUMN used_at timestamptz,
    ADD COLUMN defaults jsonb`.execute(db)
  await sql`CREATE INDEX snapshots_layers ON snapshots (team_id, layer_hash)
    WHERE layer_hash IS NOT NULL AND state = 'ready'`.execute(db)
  await sql`CREATE TABLE template_builds (
    id text PRIMARY KEY,
    team_id text NOT NULL REFERENCES teams (id),
    name text NOT NULL,
    state text NOT NULL CHECK (state IN ('draft', 'waiting', 'building', 'ready', 'error', 'cancelled')),
    vcpus integer,
    memory_mib integer,
    plan jsonb,
    actor jsonb,
    attempts bigint NOT NULL DEFAULT 0,
    failures bigint NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    deadline_at timestamptz,
    capsule_id text,
    log_count bigint NOT NULL DEFAULT 0,
    log_bytes bigint NOT NULL DEFAULT 0,
    snapshot_id text,
    reason jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    CHECK ((state = 'draft') <= (plan IS NULL)),
    CHECK ((ended_at IS NULL) = (state IN ('draft', 'waiting', 'building')))
  )`.execute(db)
  await sql`CREATE INDEX template_builds_open ON template_builds (due_at) WHERE ended_at IS NULL`.execute(db)
  await sql`CREATE INDEX template_builds_name ON template_builds (team_id, name)`.execute(db)
  await sql`CREATE INDEX template_builds_ended ON template_builds (ended_at) WHERE ended_at IS NOT NULL`.execute(db)
  await sql`CREATE INDEX template_builds_left ON template_builds (id)
    WHERE ended_at IS NOT NULL AND capsule_id IS NOT NULL`.execute(db)
  await sql`CREATE TABLE template_build_logs (
    build_id text NOT NULL REFERENCES template_builds (id) ON DELETE CASCADE,
    seq integer NOT NULL,
    at timestamptz NOT NULL,
    level text NOT NULL,
    step text NOT NULL,
    message text NOT NULL,
    PRIMARY KEY (build_id, seq)
  )`.execute(db)
  await sql`CREATE TABLE signing_keys (purpose text PRIMARY KEY, secret text NOT NULL)`.execute(db)
  await sql`INSERT INTO signing_keys (purpose, secret)
    VALUES ('template_upload', gen_random_uuid()::text || gen_random_uuid()::text)`.execute(db)
}

/** Forgets builds; what they kept for the next ones goes with its files, the templates that they made stay. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE signing_keys`.execute(db)
  await sql`DROP TABLE template_build_logs`.execute(db)
  await sql`DROP TABLE template_builds`.execute(db)
  await sql`UPDATE snapshots SET state = 'deleting', deleted_at = now() WHERE hidden AND state = 'ready'`.execute(db)
  await sql`DROP INDEX snapshots_layers`.execute(db)
  await sql`ALTER TABLE snapshots
    DROP COLUMN hidden,
    DROP COLUMN build_id,
    DROP COLUMN layer_hash,
    DROP COLUMN used_at,
    DROP COLUMN defaults`.execute(db)
}
