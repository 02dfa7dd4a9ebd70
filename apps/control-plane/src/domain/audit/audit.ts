import { AppError } from '@wrenn/base'
import type { AuditPage, ListAuditQuery } from '@wrenn/protocol'
import { type AboutCapsule, type AuditPosition, listAboutCapsule, listAudit, listChained } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import type { AuditRow } from '../../store/schema.js'
import type { AuditChains } from './chain.js'
import { toNamedEntry } from './entry.js'

const EXPORT_BATCH = 1_000
const ABOUT_BATCH = 1_000

interface AuditDeps {
  readonly db: Db
  readonly chains: AuditChains
}

/** What happened in a team. */
export class Audit {
  readonly #deps: AuditDeps

  constructor(deps: AuditDeps) {
    this.#deps = deps
  }

  /** A page, newest first. @throws AppError `invalid_request` */
  async list(teamId: string, query: ListAuditQuery): Promise<AuditPage> {
    const rows = await listAudit(this.#deps.db, teamId, {
      actorId: query.actor_id,
      actions: query.action,
      resourceType: query.resource_type,
      resourceId: query.resource_id,
      outcome: query.outcome,
      since: query.since === undefined ? undefined : new Date(query.since),
      until: query.until === undefined ? undefined : new Date(query.until),
      before: query.cursor === undefined ? undefined : decode(query.cursor),
      limit: query.limit + 1,
    })
    const page = rows.slice(0, query.limit)
    const last = rows.length > query.limit ? page.at(-1) : undefined
    return { items: page.map(toNamedEntry), ...(last === undefined ? {} : { next_cursor: encode(last) }) }
  }

  /** Entries of the team about one capsule, in the order of time or against it; read from the database as they are asked for. */
  async *aboutCapsule(
    teamId: string,
    capsuleId: string,
    which: Omit<AboutCapsule, 'after' | 'limit'>,
  ): AsyncGenerator<AuditRow> {
    for (let after: AuditPosition | undefined; ; ) {
      const rows = await listAboutCapsule(this.#deps.db, teamId, capsuleId, { ...which, after, limit: ABOUT_BATCH })
      yield* rows
      if (rows.length < ABOUT_BATCH) return
      after = rows.at(-1)
    }
  }

  /** All entries after a place in the chain that are committed when this begins, in the chain's order, as lines of JSON. */
  async *export(teamId: string, afterSeq: number): AsyncGenerator<string> {
    const lastSeq = await this.#deps.chains.extend(teamId)
    for (let seq = afterSeq; seq < lastSeq; ) {
      const rows = await listChained(this.#deps.db, teamId, seq, Math.min(EXPORT_BATCH, lastSeq - seq))
      const last = rows.at(-1)
      // What retention has passed meanwhile.
      if (last?.seq === undefined || last.seq === null) return
      yield rows
        .filter((row) => (row.seq ?? 0) <= lastSeq)
        .map((row) => `${JSON.stringify(toNamedEntry(row))}\n`)
        .join('')
      seq = last.seq
    }
  }
}

function encode({ at, id }: AuditPosition): string {
  return Buffer.from(`1:${at.getTime()}:${id}`).toString('base64url')
}

/** @throws AppError `invalid_request` */
function decode(cursor: string): AuditPosition {
  const [, at, id] = /^1:(\d{1,14}):(log-[0-9a-z]{25})$/.exec(Buffer.from(cursor, 'base64url').toString('latin1')) ?? []
  if (at === undefined || id === undefined) {
    throw new AppError('invalid_request', 'cursor must be the next_cursor of a page.')
  }
  return { at: new Date(Number(at)), id }
}
