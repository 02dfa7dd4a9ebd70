import { AppError } from '@wrenn/base'
import { type Kysely, sql } from 'kysely'

/** Which capsules are in the object store alone and what hosts they may wake on, what else of theirs is there, and what hosts still have of them. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE capsules ADD COLUMN stored_state text, ADD COLUMN host_tags text[]`.execute(db)
  await sql`CREATE TABLE stored_states (
    id text PRIMARY KEY,
    team_id text NOT NULL,
    capsule_id text NOT NULL,
    sealed_by text NOT NULL,
    layers text[] NOT NULL DEFAULT '{}',
    bytes bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    whole_at timestamptz
  )`.execute(db)
  await sql`CREATE INDEX stored_states_team ON stored_states (team_id, sealed_by)`.execute(db)
  await sql`CREATE TABLE stored_layers (
    team_id text NOT NULL,
    sealed_by text NOT NULL,
    digest text NOT NULL,
    PRIMARY KEY (team_id, sealed_by, digest)
  )`.execute(db)
  await sql`CREATE TABLE stored_teams (
    team_id text NOT NULL,
    sealed_by text NOT NULL,
    has_waste boolean NOT NULL DEFAULT false,
    collecting_until timestamptz,
    PRIMARY KEY (team_id, sealed_by)
  )`.execute(db)
  // No references: what a host has must be freed also when nobody knows the capsule any more.
  await sql`CREATE TABLE state_leftovers (
    state_id text NOT NULL,
    capsule_id text NOT NULL,
    host_id text NOT NULL,
    attempt bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (state_id, host_id, attempt)
  )`.execute(db)
  await sql`CREATE FUNCTION capsule_rehosted() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_notify('capsule_rehosted', NEW.id);
      RETURN NULL;
    END $$`.execute(db)
  await sql`CREATE TRIGGER capsule_rehosted AFTER UPDATE ON capsules FOR EACH ROW
    WHEN (OLD.host_id IS NOT NULL AND OLD.host_id IS DISTINCT FROM NEW.host_id) EXECUTE FUNCTION capsule_rehosted()`.execute(
    db,
  )
}

/**
 * Forgets what is in the store.
 * @throws AppError `conflict` while a capsule is there alone
 */
export async function down(db: Kysely<unknown>): Promise<void> {
  const { rows } = await sql`SELECT id FROM capsules WHERE stored_state IS NOT NULL LIMIT 1`.execute(db)
  if (rows.length > 0) {
    throw new AppError(
      'conflict',
      'Capsules are hibernated; an earlier version would lose them. Resume or end them first.',
    )
  }
  // One that was still running is only paused: nobody else takes it out of that state.
  await sql`UPDATE operations AS o SET kind = 'pause', idempotency_key = NULL, params = '{"reason": "request"}'
    FROM capsules AS c WHERE c.id = o.capsule_id AND c.state = 'pausing' AND o.kind = 'hibernate' AND o.state = 'running'`.execute(
    db,
  )
  await sql`DELETE FROM operations WHERE kind = 'hibernate'`.execute(db)
  await sql`DROP TRIGGER capsule_rehosted ON capsules`.execute(db)
  await sql`DROP FUNCTION capsule_rehosted()`.execute(db)
  await sql`DROP TABLE state_leftovers, stored_teams, stored_layers, stored_states`.execute(db)
  await sql`ALTER TABLE capsules DROP COLUMN stored_state, DROP COLUMN host_tags`.execute(db)
}
