import { type Kysely, sql } from 'kysely'

const recorded = ['team_id', 'template', 'state', 'vcpus', 'memory_mib', 'disk_size_mib']
/** What is fetched from the object store does not run yet, however long that takes. */
const heldAs = {
  state: `CASE WHEN ROW.state = 'resuming' AND ROW.stored_state IS NOT NULL THEN 'hibernated' ELSE ROW.state END`,
}
const of = (row: string, as: Partial<Record<string, string>>): string =>
  recorded.map((column) => (as[column] ?? `ROW.${column}`).replaceAll('ROW', row)).join(', ')

/**
 * Since when states are in the object store, as their capsules count, since when a team's waste waits for a moment in which nobody stores, and a ledger in which
 * a capsule that is fetched is not awake.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  // First: whoever hibernates a capsule meanwhile holds it before its state, and each would wait for the other.
  await record(db, heldAs)
  await sql`ALTER TABLE stored_states ADD COLUMN generation bigint`.execute(db)
  await sql`ALTER TABLE stored_teams ADD COLUMN waits_since timestamptz`.execute(db)
  // Those that are fetched now are so as what this counts.
  await sql`UPDATE stored_states AS s SET generation = c.generation - 1 FROM capsules AS c WHERE c.stored_state = s.id`.execute(
    db,
  )
}

/** Forgets all three. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await record(db, {})
  await sql`ALTER TABLE stored_teams DROP COLUMN waits_since`.execute(db)
  await sql`ALTER TABLE stored_states DROP COLUMN generation`.execute(db)
}

/** Otherwise as migration 27 has made it. */
async function record(db: Kysely<unknown>, as: Partial<Record<string, string>>): Promise<void> {
  await sql`CREATE OR REPLACE FUNCTION usage_change() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
      changed_at timestamptz;
    BEGIN
      IF TG_OP <> 'INSERT' THEN
        UPDATE usage_ledger SET ended_at = greatest(usage_clock(), began_at, (SELECT closed_until FROM usage_state))
          WHERE capsule_id = OLD.id AND ended_at IS NULL RETURNING ended_at INTO changed_at;
      END IF;
      IF TG_OP <> 'DELETE' AND NEW.state <> 'stopped' THEN
        INSERT INTO usage_ledger (capsule_id, ${sql.raw(recorded.join(', '))}, began_at)
          VALUES (NEW.id, ${sql.raw(of('NEW', as))},
            coalesce(changed_at, greatest(usage_clock(), (SELECT closed_until FROM usage_state))));
      END IF;
      RETURN NULL;
    END $$`.execute(db)
  await sql`DROP TRIGGER usage_update ON capsules`.execute(db)
  const isChanged = `(${of('OLD', as)}) IS DISTINCT FROM (${of('NEW', as)})`
  await sql
    .raw(
      `CREATE TRIGGER usage_update AFTER UPDATE ON capsules FOR EACH ROW WHEN (${isChanged}) EXECUTE FUNCTION usage_change()`,
    )
    .execute(db)
}
