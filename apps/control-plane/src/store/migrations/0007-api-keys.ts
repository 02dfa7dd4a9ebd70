import { type Kysely, sql } from 'kysely'

/** Keys get scopes, an end and a maker, and every control plane hears at once when one changes. Those that are there keep all scopes. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE api_keys
    ADD COLUMN scopes text[] NOT NULL DEFAULT '{read,capsules,templates,admin}',
    ADD COLUMN created_by text,
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN revoked_at timestamptz`.execute(db)
  await sql`ALTER TABLE api_keys ALTER COLUMN scopes DROP DEFAULT`.execute(db)
  await sql`CREATE FUNCTION api_key_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_notify('api_key_changed', OLD.id);
      RETURN NULL;
    END $$`.execute(db)
  // Not for last_used_at, which is written all the time.
  await sql`CREATE TRIGGER api_key_changed
    AFTER UPDATE OF team_id, name, key_hash, scopes, expires_at, revoked_at OR DELETE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION api_key_changed()`.execute(db)
}

/** Forgets keys that may do less than all, or not for ever: the version before would let them do everything, always. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TRIGGER api_key_changed ON api_keys`.execute(db)
  await sql`DROP FUNCTION api_key_changed()`.execute(db)
  await sql`DELETE FROM api_keys WHERE revoked_at IS NOT NULL OR expires_at IS NOT NULL
    OR NOT scopes @> '{read,capsules,templates,admin}'`.execute(db)
  await sql`ALTER TABLE api_keys
    DROP COLUMN scopes,
    DROP COLUMN created_by,
    DROP COLUMN expires_at,
    DROP COLUMN revoked_at`.execute(db)
}
