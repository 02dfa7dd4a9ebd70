import type * as wire from '@wrenn/protocol'
import { auditEntry } from './convert.js'
import type { CallOptions, Transport } from './transport.js'
import type { AuditEntry } from './types.js'

const PAGE_SIZE = 200

/** Which entries are listed; what is given must all be so. */
export interface ListAuditOptions extends CallOptions {
  readonly actorId?: string
  /** Any of these, such as `capsule.create`. */
  readonly actions?: readonly string[]
  readonly resourceType?:
    | 'capsule'
    | 'snapshot'
    | 'api_key'
    | 'user'
    | 'session'
    | 'team'
    | 'invitation'
    | 'plan'
    | 'channel'
    | 'host'
    | 'host_authority'
  readonly resourceId?: string
  readonly outcome?: 'accepted' | 'success' | 'failure'
  /** From this time on. */
  readonly since?: Date
  /** Before this time. */
  readonly until?: Date
}

/** Which part of the trail is exported. */
export interface ExportAuditOptions extends CallOptions {
  /** To go on after the `seq` where an earlier export ended. @default the oldest that is kept */
  readonly afterSeq?: number
}

/** What happened in the team; the client's key needs the scope `admin`. */
export class Audit {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** Newest first, page after page as they are asked for. */
  list(options: ListAuditOptions = {}): AsyncGenerator<AuditEntry> {
    return listEntries(this.#transport, '/v1/audit-logs', options)
  }

  /**
   * The trail as lines of JSON in the order of its chain, as bytes; for `wrenn audit verify`, or to keep.
   * @throws ConnectionError, also in the middle: what came until then is good up to the last line end
   */
  async export(options: ExportAuditOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const { afterSeq, ...call } = options
    const query = { after_seq: afterSeq }
    const { body } = await this.#transport.request('GET', '/v1/audit-logs/export', { ...call, query })
    return body ?? new ReadableStream({ start: (controller) => controller.close() })
  }
}

/** Entries of one trail, newest first. */
export async function* listEntries(
  transport: Transport,
  route: string,
  options: ListAuditOptions,
): AsyncGenerator<AuditEntry> {
  const { actorId, actions, resourceType, resourceId, outcome, since, until, ...call } = options
  const filter = {
    actor_id: actorId,
    action: actions?.join(','),
    resource_type: resourceType,
    resource_id: resourceId,
    outcome,
    since: since?.toISOString(),
    until: until?.toISOString(),
    limit: PAGE_SIZE,
  }
  let cursor: string | undefined
  do {
    const query = { ...filter, cursor }
    const page = await transport.json<wire.AuditPage>('GET', route, { ...call, query })
    for (const entry of page.items) yield auditEntry(entry)
    cursor = page.next_cursor
  } while (cursor !== undefined)
}
