import { type Kysely, sql } from 'kysely'

/** What capsules have used: points of a stretch of time packed into one row, of three resolutions that are kept for different times. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE capsules ADD CONSTRAINT capsules_seq UNIQUE (seq)`.execute(db)
  // By the short number of a capsule, which is in every row and twice in its indexes. Most rows live for minutes, so they are
  // vacuumed early.
  await sql`CREATE TABLE capsule_metrics (
    capsule_seq bigint NOT NULL REFERENCES capsules (seq) ON DELETE CASCADE,
    tier smallint NOT NULL CHECK (tier BETWEEN 0 AND 2),
    at bigint NOT NULL,
    points bytea NOT NULL,
    PRIMARY KEY (capsule_seq, tier, at)
  ) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2)`.execute(db)
  await sql`CREATE INDEX capsule_metrics_age ON capsule_metrics (tier, at)`.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE capsule_metrics`.execute(db)
  await sql`ALTER TABLE capsules DROP CONSTRAINT capsules_seq`.execute(db)
}
