import { type Kysely, sql } from 'kysely'

/**
 * What a billing system is told of usage, and whether it has it. A day is noted in the transaction that writes its sums; what is told is what these
 * differ by from all that was told before, so that a day which is made anew is put right by what is missing.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE usage_changed_days (date date PRIMARY KEY)`.execute(db)
  await sql`INSERT INTO usage_changed_days SELECT DISTINCT date FROM usage_rollups WHERE period = 'day'`.execute(db)
  // No reference: what a team has used outlives the team.
  await sql`CREATE TABLE lago_events (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    team_id text NOT NULL,
    date date NOT NULL,
    metric text NOT NULL,
    revision int NOT NULL CHECK (revision > 0),
    value numeric NOT NULL,
    queued_at timestamptz NOT NULL DEFAULT now(),
    attempts int NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT now(),
    reason text,
    taken_at timestamptz,
    UNIQUE (date, team_id, metric, revision)
  )`.execute(db)
  await sql`CREATE INDEX lago_events_fresh ON lago_events (seq) WHERE taken_at IS NULL AND attempts = 0`.execute(db)
  await sql`CREATE INDEX lago_events_refused ON lago_events (next_at, seq) WHERE taken_at IS NULL AND attempts > 0`.execute(
    db,
  )
  await sql`CREATE TABLE lago_state (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    since date,
    lease int NOT NULL DEFAULT 0,
    leased_until timestamptz,
    next_at timestamptz NOT NULL DEFAULT now(),
    failures int NOT NULL DEFAULT 0,
    problem text
  )`.execute(db)
  await sql`INSERT INTO lago_state DEFAULT VALUES`.execute(db)
}

/** Forgets what was told: a billing system that keeps it refuses to take it again. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE usage_changed_days, lago_events, lago_state`.execute(db)
}
