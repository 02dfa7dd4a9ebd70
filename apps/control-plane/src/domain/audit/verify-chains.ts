import { AUDIT_GENESIS } from '@wrenn/protocol'
import { listChainEnds, listChained } from '../../store/audit-chain.js'
import type { Db } from '../../store/database.js'
import type { AuditChainRow } from '../../store/schema.js'
import { hashOf } from './chain.js'
import { toAuditEntry } from './entry.js'

const BATCH = 2_000

/** A chain that is not as it was written, and where that shows first. */
export interface BrokenChain {
  readonly teamId: string
  readonly seq: number
}

/** Looks at every entry of every chain. @returns how many entries are as they were written, and the chains that are broken */
export async function verifyChains(db: Db): Promise<{ entries: number; broken: readonly BrokenChain[] }> {
  const broken: BrokenChain[] = []
  let entries = 0
  for (const chain of await listChainEnds(db)) {
    const good = await verifyChain(db, chain)
    entries += good - chain.first_seq + 1
    if (good < chain.last_seq) broken.push({ teamId: chain.team_id, seq: good + 1 })
  }
  return { entries, broken }
}

/** @returns the place up to which it is as it was written */
async function verifyChain(
  db: Db,
  { team_id: teamId, first_seq, last_seq, last_hash }: AuditChainRow,
): Promise<number> {
  let seq = first_seq - 1
  let hash = first_seq === 1 ? AUDIT_GENESIS : undefined
  while (seq < last_seq) {
    const rows = await listChained(db, teamId, seq, BATCH)
    for (const row of rows) {
      const follows = row.seq === seq + 1 && (hash === undefined || row.prev_hash === hash)
      if (!follows || row.hash !== hashOf(toAuditEntry(row))) return seq
      seq += 1
      hash = row.hash
    }
    if (rows.length === 0) return seq
  }
  return hash === undefined || hash === last_hash ? seq : seq - 1
}
