import { createHash } from 'node:crypto'
import { errorText, type Logger } from '@wrenn/base'
import { AUDIT_GENESIS, type AuditEntry, auditText } from '@wrenn/protocol'
import {
  appendToChain,
  type ChainedEntry,
  listChains,
  lockChain,
  openEntries,
  pruneChain,
  teamsWithOpenEntries,
} from '../../store/audit-chain.js'
import type { Db } from '../../store/database.js'
import type { AuditRow } from '../../store/schema.js'
import { Rounds } from '../rounds.js'
import { toAuditEntry } from './entry.js'

const LOOK_EVERY_MS = 1_000
const PRUNE_EVERY_MS = 10 * 60_000
const BATCH = 500
/** Few enough to be quick; they go batch after batch. */
const PRUNE_BATCH = 1_000

interface AuditChainsDeps {
  readonly db: Db
  readonly logger: Logger
  /** How long entries are kept; 0: for ever. */
  readonly retentionMs: number
  /** @default 1000 */
  readonly lookEveryMs?: number
}

/**
 * Gives entries their places in the chains of their teams, a moment after the transactions that wrote them: so those never wait for each
 * other, however many of a team run at once. Any control plane does it, one at a time.
 */
export class AuditChains {
  readonly #deps: AuditChainsDeps
  readonly #rounds: Rounds
  #prunedAt = Number.NEGATIVE_INFINITY

  constructor(deps: AuditChainsDeps) {
    this.#deps = deps
    // Entries keep until the next look.
    const onFailure = (error: unknown): void => deps.logger.debug({ error: errorText(error) }, 'audit.not_chained')
    this.#rounds = new Rounds(() => this.#look(), deps.lookEveryMs ?? LOOK_EVERY_MS, onFailure)
  }

  start(): void {
    this.#rounds.start()
  }

  /** Waits for what is under way. */
  async stop(): Promise<void> {
    await this.#rounds.stop()
  }

  /** Chains all that is committed of a team. @returns the place of the last entry, 0 when there is none */
  async extend(teamId: string): Promise<number> {
    for (;;) {
      const { added, lastSeq } = await this.#deps.db.transaction().execute(async (tx) => {
        const chain = await lockChain(tx, teamId, AUDIT_GENESIS)
        const entries = chained(await openEntries(tx, teamId, BATCH), chain.last_seq, chain.last_hash)
        await appendToChain(tx, teamId, entries)
        return { added: entries.length, lastSeq: chain.last_seq + entries.length }
      })
      if (added < BATCH) return lastSeq
    }
  }

  /** Forgets what is older than the retention, from the beginning of each chain: what is left can still be verified. */
  async prune(): Promise<void> {
    const { db, logger, retentionMs } = this.#deps
    this.#prunedAt = performance.now()
    if (retentionMs === 0) return
    const before = new Date(Date.now() - retentionMs)
    for (const teamId of await listChains(db)) {
      let count = 0
      for (let more = PRUNE_BATCH; more === PRUNE_BATCH && !this.#rounds.signal.aborted; count += more) {
        more = await pruneChain(db, teamId, before, PRUNE_BATCH)
      }
      if (count > 0) logger.info({ teamId, count }, 'audit.pruned')
    }
  }

  async #look(): Promise<void> {
    for (const teamId of await teamsWithOpenEntries(this.#deps.db)) await this.extend(teamId)
    if (performance.now() - this.#prunedAt > PRUNE_EVERY_MS) await this.prune()
  }
}

function chained(rows: readonly AuditRow[], lastSeq: number, lastHash: string): ChainedEntry[] {
  let [seq, prevHash] = [lastSeq, lastHash]
  return rows.map((row) => {
    seq += 1
    const hash = hashOf(toAuditEntry({ ...row, seq, prev_hash: prevHash }))
    const entry = { id: row.id, seq, prev_hash: prevHash, hash }
    prevHash = hash
    return entry
  })
}

/** The text of an entry's place in its chain. */
export function hashOf(entry: AuditEntry): string {
  return createHash('sha256').update(auditText(entry)).digest('hex')
}
