import { type Kysely, sql } from 'kysely'

/** A capsule's ports may be private, and every control plane hears at once when that changes. Those that are there stay public. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE capsules ADD COLUMN port_token text`.execute(db)
  await sql`CREATE FUNCTION port_access_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_notify('port_access_changed', NEW.id);
      RETURN NULL;
    END $$`.execute(db)
  await sql`CREATE TRIGGER port_access_changed AFTER UPDATE OF port_token ON capsules FOR EACH ROW
    WHEN (OLD.port_token IS DISTINCT FROM NEW.port_token) EXECUTE FUNCTION port_access_changed()`.execute(db)
}

/** Forgets tokens: the version before lets everybody in who knows a capsule's id. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TRIGGER port_access_changed ON capsules`.execute(db)
  await sql`DROP FUNCTION port_access_changed()`.execute(db)
  await sql`ALTER TABLE capsules DROP COLUMN port_token`.execute(db)
}
