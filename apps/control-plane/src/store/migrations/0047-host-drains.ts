import { type Kysely, sql } from 'kysely'

/** Hosts that are being emptied, and what has come of each capsule of theirs. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE host_drains (
    host_id text PRIMARY KEY REFERENCES joined_hosts (id) ON DELETE CASCADE,
    concurrency integer NOT NULL,
    actor jsonb,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    looked_until timestamptz NOT NULL DEFAULT now()
  )`.execute(db)
  // No reference to capsules: what became of one that is forgotten meanwhile is still counted.
  await sql`CREATE TABLE drained_capsules (
    host_id text NOT NULL REFERENCES host_drains (host_id) ON DELETE CASCADE,
    capsule_id text NOT NULL,
    team_id text NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'moving', 'done', 'failed')),
    operation_id text,
    attempts integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT now(),
    error jsonb,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (host_id, capsule_id)
  )`.execute(db)
}

/** Drops them. Hosts stay cordoned; an earlier version moves nothing, so moves that are under way end where they are. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE drained_capsules, host_drains`.execute(db)
  await sql`DELETE FROM operations WHERE kind = 'move'`.execute(db)
}
