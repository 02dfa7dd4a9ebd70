import { type Kysely, sql } from 'kysely'

/**
 * Where teams want their events sent to. What is to be sent is written with the event, one row for each channel, and no row of a channel
 * is touched by that: transactions never wait for each other because of it. For the same reason deliveries do not refer to
 * channels by a key, where the end of a channel would break the change that is told of.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE channels (
    id text PRIMARY KEY,
    team_id text NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    name text NOT NULL,
    provider text NOT NULL,
    config text NOT NULL,
    target text NOT NULL,
    events text[] NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    revision int NOT NULL DEFAULT 0,
    problem text,
    failures int NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT now(),
    lease int NOT NULL DEFAULT 0,
    leased_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (team_id, name)
  )`.execute(db)
  await sql`CREATE INDEX channels_due ON channels (next_at) WHERE enabled`.execute(db)
  await sql`CREATE TABLE channel_deliveries (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    channel_id text NOT NULL,
    type text NOT NULL,
    resource_id text NOT NULL,
    lane text NOT NULL,
    at timestamptz NOT NULL,
    data jsonb NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts int NOT NULL DEFAULT 0,
    queued_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    reason text,
    request jsonb,
    answer jsonb,
    CHECK ((state = 'pending') = (ended_at IS NULL))
  ) WITH (autovacuum_vacuum_scale_factor = 0.05)`.execute(db)
  await sql`CREATE INDEX channel_deliveries_pending ON channel_deliveries (channel_id, seq) WHERE state = 'pending'`.execute(
    db,
  )
  await sql`CREATE INDEX channel_deliveries_overdue ON channel_deliveries (queued_at) WHERE state = 'pending'`.execute(
    db,
  )
  await sql`CREATE INDEX channel_deliveries_log ON channel_deliveries (channel_id, state, seq)`.execute(db)
  await sql`CREATE INDEX channel_deliveries_ended ON channel_deliveries (ended_at) WHERE state <> 'pending'`.execute(db)
  // What concerns a capsule is in its lane, checkpoints of it too.
  await sql`CREATE FUNCTION channel_event() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO channel_deliveries (channel_id, type, resource_id, lane, at, data)
        SELECT id, NEW.type, NEW.resource_id, coalesce(NEW.data ->> 'capsule_id', NEW.resource_id), NEW.at, NEW.data
        FROM channels
        WHERE team_id = NEW.team_id AND enabled AND events && ARRAY[
          '*', NEW.type, split_part(NEW.type, '.', 1) || '.*', NEW.type || ':' || coalesce(NEW.data ->> 'state', '')];
      IF FOUND THEN PERFORM pg_notify('channel_due', ''); END IF;
      RETURN NULL;
    END $$`.execute(db)
  await sql`CREATE TRIGGER channel_event AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION channel_event()`.execute(
    db,
  )
}

/** Nothing that waits is sent any more. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TRIGGER channel_event ON events`.execute(db)
  await sql`DROP FUNCTION channel_event()`.execute(db)
  await sql`DROP TABLE channel_deliveries`.execute(db)
  await sql`DROP TABLE channels`.execute(db)
}
