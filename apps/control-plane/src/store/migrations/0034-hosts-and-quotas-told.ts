import { type Kysely, sql } from 'kysely'

interface Trigger {
  readonly table: string
  readonly name: string
  /** Operation and condition. */
  readonly when: readonly [operation: 'INSERT' | 'UPDATE', condition: string]
  readonly does: string
}

const host = (type: string, condition: string): Trigger => ({
  table: 'hosts',
  name: `event_${type.replace('.', '_')}`,
  when: ['UPDATE', condition],
  does: `host_event('${type}')`,
})
const quota = (type: string, at: string): Trigger[] => {
  const [name, does] = [`event_${type.replace('.', '_')}`, `team_event('${type}', 'quota', 'used', 'limit')`]
  const table = 'quota_levels'
  return [
    { table, name, when: ['UPDATE', `NEW.${at} > coalesce(OLD.${at}, '-infinity')`], does },
    { table, name: `${name}_at_once`, when: ['INSERT', `NEW.${at} IS NOT NULL`], does },
  ]
}

const triggers: readonly Trigger[] = [
  host('host.down', `OLD.told_state = 'up' AND NEW.told_state = 'down'`),
  host('host.up', `OLD.told_state = 'down' AND NEW.told_state = 'up'`),
  host('host.pressure', '(NEW.memory_short AND NOT OLD.memory_short) OR (NEW.pool_short AND NOT OLD.pool_short)'),
  host('host.eased', '(OLD.memory_short OR OLD.pool_short) AND NOT NEW.memory_short AND NOT NEW.pool_short'),
  ...quota('quota.near', 'near_at'),
  ...quota('quota.reached', 'reached_at'),
]

/** What a channel is told of; `all`: which types are in `*`. */
const channelEvent = (
  all: string,
) => sql`CREATE OR REPLACE FUNCTION channel_event() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO channel_deliveries (channel_id, type, resource_id, lane, at, data)
        SELECT id, NEW.type, NEW.resource_id, coalesce(NEW.data ->> 'capsule_id', NEW.resource_id), NEW.at, NEW.data
        FROM channels
        WHERE team_id = NEW.team_id AND enabled AND events && ARRAY[
          ${sql.raw(all)}, NEW.type, split_part(NEW.type, '.', 1) || '.*', NEW.type || ':' || coalesce(NEW.data ->> 'state', '')];
      IF FOUND THEN PERFORM pg_notify('channel_due', ''); END IF;
      RETURN NULL;
    END $$`

/**
 * Hosts that fall silent or run short, and teams that come near their quotas. What is told last is kept with the host and the team, so that
 * several control planes that see the same tell it once.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE hosts
    ADD COLUMN told_state text NOT NULL DEFAULT 'up' CHECK (told_state IN ('up', 'down')),
    ADD COLUMN memory_short boolean NOT NULL DEFAULT false,
    ADD COLUMN pool_short boolean NOT NULL DEFAULT false`.execute(db)
  await sql`CREATE TABLE quota_levels (
    team_id text NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    quota text NOT NULL,
    level int NOT NULL CHECK (level IN (0, 80, 100)),
    used bigint NOT NULL,
    "limit" bigint NOT NULL,
    near_at timestamptz,
    reached_at timestamptz,
    PRIMARY KEY (team_id, quota)
  )`.execute(db)
  await sql`CREATE INDEX quota_levels_raised ON quota_levels (quota) WHERE level > 0`.execute(db)
  // Down again only a tenth of the limit below: who goes to and fro at a level has reached it once.
  await sql`CREATE FUNCTION quota_level(before int, used bigint, max bigint) RETURNS int LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
      WHEN max <= 0 THEN 0
      WHEN used >= max OR (before = 100 AND used * 10 >= max * 9) THEN 100
      WHEN used * 10 >= max * 8 OR (before >= 80 AND used * 10 >= max * 7) THEN 80
      ELSE 0
    END $$`.execute(db)
  // Hosts are of nobody's team: whom the platform is run by is told, in the teams that they work in.
  await sql`CREATE FUNCTION host_event() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
      team text;
    BEGIN
      FOR team IN SELECT t.id FROM teams AS t WHERE t.deleted_at IS NULL AND (
        EXISTS (SELECT FROM team_members AS m JOIN users AS u ON u.id = m.user_id
          WHERE m.team_id = t.id AND u.is_admin AND u.status = 'active' AND u.deleted_at IS NULL)
        OR EXISTS (SELECT FROM api_keys AS k WHERE k.team_id = t.id AND k.revoked_at IS NULL
          AND (k.expires_at IS NULL OR k.expires_at > now()) AND k.scopes && ARRAY['platform', 'monitor']))
        ORDER BY t.id
      LOOP
        INSERT INTO events (team_id, type, resource_id, data) VALUES (team, TG_ARGV[0], NEW.id, jsonb_build_object(
          'address', NEW.address, 'state', NEW.told_state, 'memory_short', NEW.memory_short, 'pool_short', NEW.pool_short));
        PERFORM pg_notify('team_event', team);
      END LOOP;
      RETURN NULL;
    END $$`.execute(db)
  await channelEvent(`CASE WHEN NEW.type LIKE 'host.%' THEN NULL ELSE '*' END`).execute(db)
  for (const { table, name, when, does } of triggers) {
    const [operation, condition] = when
    await sql
      .raw(
        `CREATE TRIGGER ${name} AFTER ${operation} ON ${table} FOR EACH ROW WHEN (${condition}) EXECUTE FUNCTION ${does}`,
      )
      .execute(db)
  }
}

/** Nobody is told of either any more. */
export async function down(db: Kysely<unknown>): Promise<void> {
  for (const { table, name } of triggers) await sql.raw(`DROP TRIGGER ${name} ON ${table}`).execute(db)
  await channelEvent(`'*'`).execute(db)
  await sql`DROP FUNCTION host_event()`.execute(db)
  await sql`DROP TABLE quota_levels`.execute(db)
  await sql`DROP FUNCTION quota_level(int, bigint, bigint)`.execute(db)
  await sql`ALTER TABLE hosts DROP COLUMN told_state, DROP COLUMN memory_short, DROP COLUMN pool_short`.execute(db)
}
