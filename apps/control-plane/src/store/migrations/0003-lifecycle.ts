import { type Kysely, sql } from 'kysely'

/** Checkpoints, snapshots, quotas, and what capsules need to sleep, wake and fork. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE teams
    ADD COLUMN max_running bigint,
    ADD COLUMN max_vcpus bigint,
    ADD COLUMN max_memory_mib bigint,
    ADD COLUMN max_pool_bytes bigint`.execute(db)
  await sql`ALTER TABLE capsules
    ADD COLUMN auto_resume boolean NOT NULL DEFAULT false,
    ADD COLUMN pause_reason text,
    ADD COLUMN paused_at timestamptz,
    ADD COLUMN durable_at timestamptz,
    ADD COLUMN saved_generation bigint NOT NULL DEFAULT 0,
    ADD COLUMN notice text,
    ADD COLUMN disk_bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN parent_id text,
    ADD COLUMN snapshot_id text,
    ADD COLUMN checkpoint_id text,
    ADD COLUMN awake_because jsonb,
    ADD COLUMN lifecycle_timings jsonb,
    DROP CONSTRAINT capsules_desired_state_check,
    ADD CONSTRAINT capsules_desired_state_check CHECK (desired_state IN ('running', 'paused', 'stopped'))`.execute(db)
  await sql`ALTER TABLE operations ADD COLUMN params jsonb, ADD COLUMN result jsonb`.execute(db)
  await sql`CREATE TABLE checkpoints (
    id text PRIMARY KEY,
    team_id text NOT NULL REFERENCES teams (id),
    capsule_id text NOT NULL REFERENCES capsules (id) ON DELETE CASCADE,
    name text NOT NULL,
    parent_id text,
    state text NOT NULL CHECK (state IN ('creating', 'ready', 'deleting')),
    hidden boolean NOT NULL DEFAULT false,
    size_bytes bigint NOT NULL DEFAULT 0,
    durable_at timestamptz,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (capsule_id, name)
  )`.execute(db)
  await sql`CREATE INDEX checkpoints_team ON checkpoints (team_id)`.execute(db)
  await sql`CREATE TABLE snapshots (
    id text PRIMARY KEY,
    team_id text NOT NULL REFERENCES teams (id),
    name text NOT NULL,
    capsule_id text NOT NULL,
    template text NOT NULL,
    vcpus integer NOT NULL,
    memory_mib integer NOT NULL,
    disk_size_mib integer NOT NULL,
    size_bytes bigint NOT NULL DEFAULT 0,
    state text NOT NULL CHECK (state IN ('creating', 'ready', 'deleting', 'deleted')),
    durable_at timestamptz,
    versions jsonb NOT NULL DEFAULT '{}',
    seq bigint GENERATED ALWAYS AS IDENTITY,
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
  )`.execute(db)
  await sql`CREATE UNIQUE INDEX snapshots_name ON snapshots (team_id, name) WHERE deleted_at IS NULL`.execute(db)
}

/** Forgets paused capsules' wishes and what checkpoints and snapshots there are; their files stay on the hosts. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE snapshots`.execute(db)
  await sql`DROP TABLE checkpoints`.execute(db)
  await sql`DELETE FROM operations WHERE kind NOT IN ('create', 'destroy')`.execute(db)
  await sql`ALTER TABLE operations DROP COLUMN params, DROP COLUMN result`.execute(db)
  await sql`UPDATE capsules SET desired_state = 'running' WHERE desired_state = 'paused'`.execute(db)
  await sql`ALTER TABLE capsules
    DROP CONSTRAINT capsules_desired_state_check,
    ADD CONSTRAINT capsules_desired_state_check CHECK (desired_state IN ('running', 'stopped')),
    DROP COLUMN auto_resume,
    DROP COLUMN pause_reason,
    DROP COLUMN paused_at,
    DROP COLUMN durable_at,
    DROP COLUMN saved_generation,
    DROP COLUMN notice,
    DROP COLUMN disk_bytes,
    DROP COLUMN parent_id,
    DROP COLUMN snapshot_id,
    DROP COLUMN checkpoint_id,
    DROP COLUMN awake_because,
    DROP COLUMN lifecycle_timings`.execute(db)
  await sql`ALTER TABLE teams
    DROP COLUMN max_running,
    DROP COLUMN max_vcpus,
    DROP COLUMN max_memory_mib,
    DROP COLUMN max_pool_bytes`.execute(db)
}
