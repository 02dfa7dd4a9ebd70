import { type Kysely, sql } from 'kysely'

/** What a trigger tells: on which table, when, as what, with which columns beside the id. */
interface Told {
  readonly table: string
  readonly name: string
  readonly when: string
  readonly type: string
  readonly id: string
  readonly data: readonly string[]
}

/** What people see of a capsule; not what is measured all the time. */
const settings = [
  'name',
  'labels',
  'timeout_sec',
  'auto_resume',
  'port_token',
  'egress',
  'egress_in_force',
  'lifetime_sec',
  'ends_at',
  'on_end',
  'durable_at',
  'notice',
  'awake_because',
  'checkpoint_id',
]
const isOther = (columns: readonly string[]): string =>
  `(${columns.map((each) => `OLD.${each}`).join(', ')}) IS DISTINCT FROM (${columns.map((each) => `NEW.${each}`).join(', ')})`

const capsule = { table: 'capsules', id: 'id', data: ['name', 'state'] }
const checkpoint = { table: 'checkpoints', id: 'id', data: ['capsule_id', 'name'] }
const snapshot = { table: 'snapshots', id: 'id', data: ['name'] }
const key = { table: 'api_keys', id: 'id', data: ['name'] }
const member = { table: 'team_members', id: 'user_id', data: ['role'] }
/** Only what is ready is listed. */
const listed = (row: string): string => `${row}.state = 'ready' AND NOT ${row}.hidden`
const points = [
  { ...checkpoint, of: 'checkpoint' },
  { ...snapshot, of: 'template' },
].flatMap(({ of, ...point }): Told[] => [
  { ...point, name: 'made', when: `INSERT: ${listed('NEW')}`, type: `${of}.created` },
  {
    ...point,
    name: 'ready',
    when: `UPDATE: NOT (${listed('OLD')}) AND ${listed('NEW')}`,
    type: `${of}.created`,
  },
  {
    ...point,
    name: 'changed',
    when: `UPDATE: ${listed('OLD')} AND ${listed('NEW')} AND ${isOther(['name', 'durable_at'])}`,
    type: `${of}.updated`,
  },
  {
    ...point,
    name: 'unlisted',
    when: `UPDATE: ${listed('OLD')} AND NOT (${listed('NEW')})`,
    type: `${of}.removed`,
  },
  { ...point, name: 'removed', when: `DELETE: ${listed('OLD')}`, type: `${of}.removed` },
])

const told: readonly Told[] = [
  { ...capsule, name: 'made', when: 'INSERT: true', type: 'capsule.created' },
  { ...capsule, name: 'moved', when: 'UPDATE: OLD.state <> NEW.state', type: 'capsule.state' },
  {
    ...capsule,
    name: 'changed',
    when: `UPDATE: OLD.state = NEW.state AND ${isOther(settings)}`,
    type: 'capsule.updated',
  },
  { ...capsule, name: 'removed', when: 'DELETE: true', type: 'capsule.removed' },
  ...points,
  { ...key, name: 'made', when: 'INSERT: true', type: 'api_key.created' },
  {
    ...key,
    name: 'revoked',
    when: 'UPDATE: OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL',
    type: 'api_key.revoked',
  },
  { ...key, name: 'removed', when: 'DELETE: true', type: 'api_key.removed' },
  { ...member, name: 'made', when: 'INSERT: true', type: 'member.joined' },
  { ...member, name: 'changed', when: 'UPDATE: OLD.role <> NEW.role', type: 'member.role' },
  { ...member, name: 'removed', when: 'DELETE: true', type: 'member.left' },
]

const triggerOf = ({ name }: Told): string => `event_${name}`

/**
 * What happened in each team, for who follows it. The order is that of transactions: numbers alone are given before the commit, so a
 * reader of them would pass by what commits late.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE events (
    team_id text NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    type text NOT NULL,
    resource_id text NOT NULL,
    data jsonb NOT NULL,
    PRIMARY KEY (team_id, xid, id)
  )`.execute(db)
  await sql`CREATE INDEX events_at ON events (at)`.execute(db)
  // Its arguments: the type, the column that has the id, and the columns that are told.
  await sql`CREATE FUNCTION team_event() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
      about jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    BEGIN
      INSERT INTO events (team_id, type, resource_id, data) VALUES (
        about ->> 'team_id', TG_ARGV[0], about ->> TG_ARGV[1],
        (SELECT coalesce(jsonb_object_agg(field, about -> field), '{}')
          FROM unnest(TG_ARGV[2:]) AS field WHERE about -> field <> 'null'));
      PERFORM pg_notify('team_event', about ->> 'team_id');
      RETURN NULL;
    END $$`.execute(db)
  for (const each of told) {
    const [operation = '', condition = ''] = each.when.split(': ')
    const args = [each.type, each.id, ...each.data].map((text) => `'${text}'`).join(', ')
    await sql
      .raw(
        `CREATE TRIGGER ${triggerOf(each)} AFTER ${operation} ON ${each.table} FOR EACH ROW WHEN (${condition}) EXECUTE FUNCTION team_event(${args})`,
      )
      .execute(db)
  }
}

/** Nobody is told anything any more. */
export async function down(db: Kysely<unknown>): Promise<void> {
  for (const each of told) await sql.raw(`DROP TRIGGER ${triggerOf(each)} ON ${each.table}`).execute(db)
  await sql`DROP FUNCTION team_event()`.execute(db)
  await sql`DROP TABLE events`.execute(db)
}
