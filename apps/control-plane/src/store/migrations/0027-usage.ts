import { type Kysely, sql } from 'kysely'

/** What a change of is a change of the ledger. */
const recorded = ['team_id', 'template', 'state', 'vcpus', 'memory_mib', 'disk_size_mib']
const columns = recorded.join(', ')
const of = (row: string): string => recorded.map((column) => `${row}.${column}`).join(', ')

/** The ledger of what capsules held and when, and what is rolled up of it. */
export async function up(db: Kysely<unknown>): Promise<void> {
  // No references: it outlives capsules, and what a team has used outlives the team.
  await sql`CREATE TABLE usage_ledger (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    capsule_id text NOT NULL,
    team_id text NOT NULL,
    template text NOT NULL,
    state text NOT NULL,
    vcpus integer NOT NULL,
    memory_mib integer NOT NULL,
    disk_size_mib integer NOT NULL,
    began_at timestamptz NOT NULL,
    ended_at timestamptz,
    CHECK (ended_at >= began_at)
  )`.execute(db)
  await sql`CREATE UNIQUE INDEX usage_ledger_open ON usage_ledger (capsule_id) WHERE ended_at IS NULL`.execute(db)
  await sql`CREATE INDEX usage_ledger_time ON usage_ledger (ended_at)`.execute(db)
  await sql`CREATE INDEX usage_ledger_team ON usage_ledger (team_id, ended_at)`.execute(db)
  await sql`CREATE TABLE usage_state (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    closed_until timestamptz NOT NULL,
    rolled_until date NOT NULL,
    kept_from date NOT NULL
  )`.execute(db)
  await sql`CREATE TABLE usage_rollups (
    team_id text NOT NULL,
    period text NOT NULL CHECK (period IN ('day', 'month')),
    date date NOT NULL,
    template text NOT NULL,
    vcpu_seconds numeric NOT NULL,
    memory_mib_seconds numeric NOT NULL,
    paused_mib_seconds numeric NOT NULL,
    disk_mib_seconds numeric NOT NULL,
    PRIMARY KEY (team_id, period, date, template)
  )`.execute(db)
  await sql`CREATE INDEX usage_rollups_date ON usage_rollups (period, date)`.execute(db)
  await sql`CREATE TABLE usage_peaks (
    team_id text NOT NULL,
    at timestamptz NOT NULL,
    running bigint NOT NULL,
    vcpus bigint NOT NULL,
    memory_mib bigint NOT NULL,
    PRIMARY KEY (team_id, at)
  )`.execute(db)
  // The one clock of the ledger; tests put another in its place.
  await sql`CREATE FUNCTION usage_clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()'`.execute(
    db,
  )
  // A capsule's row is locked by whoever changes it, so its entries come one after the other. Where the clock was set back, an entry ends
  // when it began, and nothing is entered before the end of a day that is closed.
  await sql`CREATE FUNCTION usage_change() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
      changed_at timestamptz;
    BEGIN
      IF TG_OP <> 'INSERT' THEN
        UPDATE usage_ledger SET ended_at = greatest(usage_clock(), began_at, (SELECT closed_until FROM usage_state))
          WHERE capsule_id = OLD.id AND ended_at IS NULL RETURNING ended_at INTO changed_at;
      END IF;
      IF TG_OP <> 'DELETE' AND NEW.state <> 'stopped' THEN
        INSERT INTO usage_ledger (capsule_id, ${sql.raw(columns)}, began_at)
          VALUES (NEW.id, ${sql.raw(of('NEW'))},
            coalesce(changed_at, greatest(usage_clock(), (SELECT closed_until FROM usage_state))));
      END IF;
      RETURN NULL;
    END $$`.execute(db)
  for (const [operation, condition] of [
    ['INSERT', ''],
    ['UPDATE', `WHEN ((${of('OLD')}) IS DISTINCT FROM (${of('NEW')}))`],
    ['DELETE', ''],
  ] as const) {
    const name = `usage_${operation.toLowerCase()}`
    await sql
      .raw(
        `CREATE TRIGGER ${name} AFTER ${operation} ON capsules FOR EACH ROW ${condition} EXECUTE FUNCTION usage_change()`,
      )
      .execute(db)
  }
  await sql`INSERT INTO usage_state (closed_until, rolled_until, kept_from)
    SELECT today AT TIME ZONE 'UTC', today, today FROM date_trunc('day', usage_clock() AT TIME ZONE 'UTC') AS today`.execute(
    db,
  )
  // What capsules did before is not known to the second, so it is left out.
  await sql`INSERT INTO usage_ledger (capsule_id, ${sql.raw(columns)}, began_at)
    SELECT id, ${sql.raw(columns)}, usage_clock() FROM capsules WHERE state <> 'stopped' ORDER BY seq`.execute(db)
}

/** Forgets what was used. */
export async function down(db: Kysely<unknown>): Promise<void> {
  for (const each of ['insert', 'update', 'delete']) {
    await sql.raw(`DROP TRIGGER usage_${each} ON capsules`).execute(db)
  }
  await sql`DROP FUNCTION usage_change()`.execute(db)
  await sql`DROP FUNCTION usage_clock()`.execute(db)
  await sql`DROP TABLE usage_peaks, usage_rollups, usage_state, usage_ledger`.execute(db)
}
