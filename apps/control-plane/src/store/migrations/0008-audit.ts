import { type Kysely, sql } from 'kysely'

/**
 * The audit trail. An entry is written with the change that it tells of and gets its place in its team's chain (`seq`, hashes) a moment
 * later. Nothing else may change it, and only what retention has passed may be deleted.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE operations ADD COLUMN actor jsonb`.execute(db)
  await sql`CREATE TABLE audit_log (
    id text PRIMARY KEY,
    team_id text NOT NULL,
    at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
    actor_type text NOT NULL CHECK (actor_type IN ('key', 'system')),
    actor_id text,
    actor_name text,
    action text NOT NULL,
    resource_type text NOT NULL,
    resource_id text NOT NULL,
    scope text NOT NULL CHECK (scope IN ('team', 'admin')),
    outcome text NOT NULL CHECK (outcome IN ('accepted', 'success', 'failure')),
    request_id text,
    ip text,
    details jsonb NOT NULL DEFAULT '{}',
    seq bigint,
    prev_hash text,
    hash text,
    UNIQUE (team_id, seq)
  )`.execute(db)
  await sql`CREATE INDEX audit_log_time ON audit_log (team_id, at DESC, id DESC)`.execute(db)
  await sql`CREATE INDEX audit_log_resource ON audit_log (team_id, resource_id, at DESC, id DESC)`.execute(db)
  await sql`CREATE INDEX audit_log_actor ON audit_log (team_id, actor_id, at DESC, id DESC)`.execute(db)
  await sql`CREATE INDEX audit_log_action ON audit_log (team_id, action, at DESC, id DESC)`.execute(db)
  await sql`CREATE INDEX audit_log_open ON audit_log (team_id, at, id) WHERE seq IS NULL`.execute(db)
  await sql`CREATE TABLE audit_chains (
    team_id text PRIMARY KEY,
    first_seq bigint NOT NULL DEFAULT 1,
    last_seq bigint NOT NULL DEFAULT 0,
    last_hash text NOT NULL
  )`.execute(db)
  await sql`CREATE FUNCTION audit_log_kept() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF TG_OP = 'UPDATE' THEN
        IF OLD.seq IS NULL AND to_jsonb(NEW) - '{seq,prev_hash,hash}'::text[] = to_jsonb(OLD) - '{seq,prev_hash,hash}'::text[] THEN
          RETURN NEW;
        END IF;
      ELSIF TG_OP = 'DELETE' THEN
        IF OLD.seq < (SELECT first_seq FROM audit_chains WHERE team_id = OLD.team_id) THEN
          RETURN OLD;
        END IF;
      END IF;
      RAISE EXCEPTION 'the audit trail can only be added to';
    END $$`.execute(db)
  await sql`CREATE TRIGGER audit_log_kept BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_log_kept()`.execute(db)
  await sql`CREATE TRIGGER audit_log_not_emptied BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_kept()`.execute(db)
}

/** Forgets the whole trail: export it first. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE audit_log`.execute(db)
  await sql`DROP FUNCTION audit_log_kept()`.execute(db)
  await sql`DROP TABLE audit_chains`.execute(db)
  await sql`ALTER TABLE operations DROP COLUMN actor`.execute(db)
}
