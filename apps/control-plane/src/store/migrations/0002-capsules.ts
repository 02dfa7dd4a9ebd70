import { type Kysely, sql } from 'kysely'

/** Hosts, capsules and operations. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE hosts (
    id text PRIMARY KEY,
    address text NOT NULL,
    agent_version text NOT NULL DEFAULT '',
    engine text NOT NULL DEFAULT '',
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now()
  )`.execute(db)
  await sql`CREATE TABLE capsules (
    id text PRIMARY KEY,
    team_id text NOT NULL REFERENCES teams (id),
    host_id text REFERENCES hosts (id),
    name text,
    template text NOT NULL,
    vcpus integer NOT NULL,
    memory_mib integer NOT NULL,
    disk_size_mib integer NOT NULL,
    timeout_sec integer NOT NULL DEFAULT 0,
    labels jsonb NOT NULL DEFAULT '{}',
    envs jsonb NOT NULL DEFAULT '{}',
    egress jsonb,
    default_user text NOT NULL DEFAULT '',
    default_cwd text NOT NULL DEFAULT '',
    state text NOT NULL,
    desired_state text NOT NULL CHECK (desired_state IN ('running', 'stopped')),
    observed_state text,
    observed_at timestamptz,
    generation bigint NOT NULL DEFAULT 1,
    engine text,
    engine_version text,
    kernel_version text,
    agent_version text,
    path text,
    timings jsonb,
    guest_address text,
    exit jsonb,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    stopped_at timestamptz,
    last_active_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now()
  )`.execute(db)
  await sql`CREATE INDEX capsules_team ON capsules (team_id, seq DESC)`.execute(db)
  await sql`CREATE INDEX capsules_open ON capsules (state) WHERE state <> 'stopped'`.execute(db)
  await sql`CREATE INDEX capsules_labels ON capsules USING gin (labels jsonb_path_ops)`.execute(db)
  await sql`CREATE TABLE operations (
    id text PRIMARY KEY,
    team_id text NOT NULL REFERENCES teams (id),
    capsule_id text NOT NULL REFERENCES capsules (id) ON DELETE CASCADE,
    kind text NOT NULL,
    idempotency_key text,
    request_hash text NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'succeeded', 'failed')),
    error jsonb,
    attempts bigint NOT NULL DEFAULT 1,
    generation bigint NOT NULL,
    lease_until timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
  )`.execute(db)
  await sql`CREATE UNIQUE INDEX operations_key ON operations (team_id, kind, idempotency_key)
    WHERE idempotency_key IS NOT NULL`.execute(db)
  await sql`CREATE INDEX operations_capsule ON operations (capsule_id)`.execute(db)
  await sql`CREATE INDEX operations_running ON operations (lease_until) WHERE state = 'running'`.execute(db)
}

/** Drops them, with all that is known of capsules. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE operations`.execute(db)
  await sql`DROP TABLE capsules`.execute(db)
  await sql`DROP TABLE hosts`.execute(db)
}
