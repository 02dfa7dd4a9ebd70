import { sql } from 'kysely'
import type { Db } from './database.js'
import { isOnHost } from './hosts.js'
import { ledgerNow } from './usage-ledger.js'

/** What the counters of a guest's network card say. */
export interface SeenTraffic {
  readonly capsuleId: string
  /** Never used again. */
  readonly guestId: string
  /** From the guest's start on. */
  readonly rxBytes: number
  readonly txBytes: number
}

const ROWS_PER_STATEMENT = 1_000

/**
 * Enters by how much counters have grown since they were seen last, for the team that has the capsule now, on the ledger's day. Said again, or by
 * another control plane at the same time, it enters nothing twice. Capsules that nobody knows are passed by, and with `hostId` those of other hosts.
 */
export async function recordTraffic(db: Db, seen: readonly SeenTraffic[], hostId?: string): Promise<void> {
  for (let from = 0; from < seen.length; from += ROWS_PER_STATEMENT) {
    const some = seen.slice(from, from + ROWS_PER_STATEMENT)
    await db.transaction().execute((tx) => recordSome(tx, some, hostId))
  }
}

async function recordSome(tx: Db, seen: readonly SeenTraffic[], hostId: string | undefined): Promise<void> {
  const isOwn = isOnHost(sql`c.host_id`, hostId)
  const own = hostId === undefined ? sql`` : sql`JOIN capsules AS c ON c.id = said.capsule_id AND ${isOwn}`
  const said = sql`(SELECT said.* FROM unnest(${seen.map(({ capsuleId }) => capsuleId)}::text[], ${seen.map(({ guestId }) => guestId)}::text[],
      ${seen.map(({ rxBytes }) => rxBytes)}::bigint[], ${seen.map(({ txBytes }) => txBytes)}::bigint[])
    AS said (capsule_id, guest_id, rx_bytes, tx_bytes) ${own})`
  await sql`INSERT INTO usage_counters (capsule_id, guest_id)
    SELECT said.capsule_id, said.guest_id FROM ${said} AS said JOIN capsules AS c ON c.id = said.capsule_id
    WHERE said.rx_bytes > 0 OR said.tx_bytes > 0
    ORDER BY 1, 2 ON CONFLICT DO NOTHING`.execute(tx)
  // Whoever comes second waits for the rows, and sees what the first one has written into them.
  await sql`WITH grown AS (
      SELECT k.capsule_id, k.guest_id, said.rx_bytes, said.tx_bytes,
        greatest(said.rx_bytes - k.rx_bytes, 0) AS more_rx, greatest(said.tx_bytes - k.tx_bytes, 0) AS more_tx
      FROM usage_counters AS k JOIN ${said} AS said USING (capsule_id, guest_id)
      WHERE said.rx_bytes > k.rx_bytes OR said.tx_bytes > k.tx_bytes
      ORDER BY k.capsule_id, k.guest_id FOR UPDATE OF k),
    seen AS (
      UPDATE usage_counters AS k SET rx_bytes = greatest(k.rx_bytes, grown.rx_bytes),
        tx_bytes = greatest(k.tx_bytes, grown.tx_bytes), grown_at = now()
      FROM grown WHERE k.capsule_id = grown.capsule_id AND k.guest_id = grown.guest_id)
    INSERT INTO usage_traffic AS t (date, capsule_id, team_id, template, rx_bytes, tx_bytes)
    SELECT (${ledgerNow} AT TIME ZONE 'UTC')::date, c.id, c.team_id, c.template, sum(more_rx), sum(more_tx)
    FROM grown JOIN capsules AS c ON c.id = grown.capsule_id GROUP BY c.id, c.team_id, c.template ORDER BY c.id
    ON CONFLICT (date, capsule_id, team_id, template)
      DO UPDATE SET rx_bytes = t.rx_bytes + EXCLUDED.rx_bytes, tx_bytes = t.tx_bytes + EXCLUDED.tx_bytes`.execute(tx)
}

/**
 * Forgets days before the ledger is kept, and counters that have not grown since then: of capsules that are no more, and of guests after which the
 * capsule has had another.
 */
export async function pruneTraffic(db: Db): Promise<void> {
  await sql`DELETE FROM usage_traffic WHERE date < (SELECT kept_from FROM usage_state)`.execute(db)
  await sql`DELETE FROM usage_counters AS k WHERE grown_at < (SELECT kept_from::timestamp AT TIME ZONE 'UTC' FROM usage_state)
    AND (NOT EXISTS (SELECT FROM capsules AS c WHERE c.id = k.capsule_id AND c.state <> 'stopped')
      OR EXISTS (SELECT FROM usage_counters AS later WHERE later.capsule_id = k.capsule_id AND later.grown_at > k.grown_at))`.execute(
    db,
  )
}
