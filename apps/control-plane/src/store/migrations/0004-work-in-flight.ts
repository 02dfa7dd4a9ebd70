import { type Kysely, sql } from 'kysely'

/** Whoever moves a capsule, every control plane hears of it; and a capsule has one atomic command at a time. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE FUNCTION capsule_moved() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_notify('capsule_moved', NEW.id);
      RETURN NULL;
    END $$`.execute(db)
  await sql`CREATE TRIGGER capsule_moved AFTER UPDATE ON capsules FOR EACH ROW
    WHEN (OLD.generation IS DISTINCT FROM NEW.generation) EXECUTE FUNCTION capsule_moved()`.execute(db)
  await sql`CREATE UNIQUE INDEX operations_atomic ON operations (capsule_id)
    WHERE kind = 'atomic_exec' AND state = 'running'`.execute(db)
  await sql`CREATE INDEX capsules_timed ON capsules (state) WHERE timeout_sec > 0 AND state = 'running'`.execute(db)
}

/** Control planes hear of each other's moves by looking again only. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP INDEX capsules_timed`.execute(db)
  await sql`DROP INDEX operations_atomic`.execute(db)
  await sql`DROP TRIGGER capsule_moved ON capsules`.execute(db)
  await sql`DROP FUNCTION capsule_moved()`.execute(db)
}
