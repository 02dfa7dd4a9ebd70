import { type Kysely, sql } from 'kysely'

/**
 * A capsule may have a life of its own length, at whose end it is destroyed or paused, and a token for its guest agent. Those that are there
 * have neither. A token that changes is told as a port's is.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE capsules
    ADD COLUMN access_token text,
    ADD COLUMN lifetime_sec integer CHECK (lifetime_sec >= 0),
    ADD COLUMN ends_at timestamptz,
    ADD COLUMN on_end text CHECK (on_end IN ('kill', 'pause')),
    ADD CONSTRAINT capsules_life CHECK ((lifetime_sec IS NULL) = (on_end IS NULL) AND (ends_at IS NULL) = (on_end IS NULL))`.execute(
    db,
  )
  await sql`CREATE INDEX capsules_ends ON capsules (ends_at)
    WHERE (state = 'running' OR (state = 'error' AND on_end = 'kill')) AND ends_at IS NOT NULL`.execute(db)
  await sql`CREATE TRIGGER access_token_changed AFTER UPDATE OF access_token ON capsules FOR EACH ROW
    WHEN (OLD.access_token IS DISTINCT FROM NEW.access_token) EXECUTE FUNCTION port_access_changed()`.execute(db)
}

/** Capsules that had an end live on: the version before knows none. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TRIGGER access_token_changed ON capsules`.execute(db)
  await sql`DROP INDEX capsules_ends`.execute(db)
  await sql`ALTER TABLE capsules
    DROP CONSTRAINT capsules_life,
    DROP COLUMN access_token,
    DROP COLUMN lifetime_sec,
    DROP COLUMN ends_at,
    DROP COLUMN on_end`.execute(db)
}
