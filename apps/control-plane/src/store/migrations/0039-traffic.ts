import { type Kysely, sql } from 'kysely'

/** What capsules received and sent: how far each guest's counters were seen, and what they counted on each day. */
export async function up(db: Kysely<unknown>): Promise<void> {
  // No references: they outlive capsules and teams, as the ledger does.
  await sql`CREATE TABLE usage_counters (
    capsule_id text NOT NULL,
    guest_id text NOT NULL,
    rx_bytes bigint NOT NULL DEFAULT 0,
    tx_bytes bigint NOT NULL DEFAULT 0,
    grown_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (capsule_id, guest_id)
  )`.execute(db)
  await sql`CREATE TABLE usage_traffic (
    date date NOT NULL,
    capsule_id text NOT NULL,
    team_id text NOT NULL,
    template text NOT NULL,
    rx_bytes bigint NOT NULL,
    tx_bytes bigint NOT NULL,
    PRIMARY KEY (date, capsule_id, team_id, template)
  )`.execute(db)
  await sql`CREATE INDEX usage_traffic_team ON usage_traffic (team_id, date)`.execute(db)
  await sql`ALTER TABLE usage_rollups ADD COLUMN net_rx_bytes numeric NOT NULL DEFAULT 0,
    ADD COLUMN net_tx_bytes numeric NOT NULL DEFAULT 0`.execute(db)
}

/** Forgets what was received and sent. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE usage_rollups DROP COLUMN net_rx_bytes, DROP COLUMN net_tx_bytes`.execute(db)
  await sql`DROP TABLE usage_traffic, usage_counters`.execute(db)
}
