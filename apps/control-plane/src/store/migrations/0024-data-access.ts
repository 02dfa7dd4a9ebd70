import { type Kysely, sql } from 'kysely'

/**
 * Teams may have commands and file operations in their audit trail, and every control plane hears at once when one begins or ends that. Whoever
 * came with a capsule's token is told apart there from the platform itself. Accounts that nobody activates can be found by their age.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE teams ADD COLUMN audit_data_access boolean NOT NULL DEFAULT false`.execute(db)
  await sql`CREATE INDEX teams_data_access ON teams (id) WHERE audit_data_access`.execute(db)
  await sql`CREATE FUNCTION team_audit_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_notify('team_audit_changed', NEW.id);
      RETURN NULL;
    END $$`.execute(db)
  await sql`CREATE TRIGGER team_audit_changed AFTER UPDATE OF audit_data_access ON teams
    FOR EACH ROW EXECUTE FUNCTION team_audit_changed()`.execute(db)
  await sql`ALTER TABLE audit_log DROP CONSTRAINT audit_log_actor_type_check`.execute(db)
  await sql`ALTER TABLE audit_log ADD CHECK (actor_type IN ('key', 'user', 'token', 'system'))`.execute(db)
  await sql`CREATE INDEX users_pending ON users (created_at) WHERE status = 'pending'`.execute(db)
}

/** Nothing more is recorded; entries that are there stay, those of tokens too. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP INDEX users_pending`.execute(db)
  await sql`ALTER TABLE audit_log DROP CONSTRAINT audit_log_actor_type_check`.execute(db)
  await sql`ALTER TABLE audit_log ADD CONSTRAINT audit_log_actor_type_check
    CHECK (actor_type IN ('key', 'user', 'system')) NOT VALID`.execute(db)
  await sql`DROP TRIGGER team_audit_changed ON teams`.execute(db)
  await sql`DROP FUNCTION team_audit_changed()`.execute(db)
  await sql`ALTER TABLE teams DROP COLUMN audit_data_access`.execute(db)
}
