import { AppError, errorText, type Logger } from '@wrenn/base'
import type { EgressPolicy, Egress as EgressView } from '@wrenn/protocol'
import type { Capsule } from '@wrenn/protocol/host'
import type { Host } from '../../host/host.js'
import { writeAudit } from '../../store/audit.js'
import { findEgressPending, lockCapsule, patchCapsule } from '../../store/capsules.js'
import { type Db, inTransaction } from '../../store/database.js'
import type { Actor, CapsuleRow } from '../../store/schema.js'
import { checkEgress } from '../limits/index.js'
import { illegal, needCapsule } from './need-capsule.js'

const PUSH_TIMEOUT_MS = 10_000
/** What an audit entry tells of a list; the capsule itself has all of it. */
const TOLD_CHARACTERS = 1_000
/** Of a capsule that was created without one. */
const DEFAULT_POLICY: EgressPolicy = { internet: true, allow: [], deny: [] }

interface EgressDeps {
  readonly db: Db
  readonly host: Host
  readonly logger: Logger
}

interface SetOptions {
  /** How long the answer may wait for the host. */
  readonly waitMs: number
  readonly actor: Actor
}

/**
 * What capsules may reach. A change is written first and carried to the host at once; while that is away, or the capsule is being
 * made, it stays on record and is carried there as soon as it can be.
 */
export class Egress {
  readonly #deps: EgressDeps

  constructor(deps: EgressDeps) {
    this.#deps = deps
  }

  /** @throws AppError `capsule_not_found` */
  async get(teamId: string, id: string): Promise<EgressView> {
    return toEgress(await needCapsule(this.#deps.db, teamId, id))
  }

  /**
   * Replaces the whole policy. What becomes forbidden ends its open connections, what stays allowed is never cut. The answer says
   * whether the host has it; asking for what there is already changes nothing.
   * @throws AppError `capsule_not_found`, `invalid_state`, `invalid_request` naming the entry, `engine_failure`
   */
  async set(teamId: string, id: string, policy: EgressPolicy, { waitMs, actor }: SetOptions): Promise<EgressView> {
    const { db } = this.#deps
    checkEgress(policy)
    const row = await inTransaction(db, async (tx) => {
      await needCapsule(tx, teamId, id)
      const current = await lockCapsule(tx, id)
      if (current === undefined || current.state === 'stopping' || current.state === 'stopped') {
        throw illegal(current ?? (await needCapsule(tx, teamId, id)), 'a change of its egress')
      }
      return isSame(policyOf(current), policy) ? current : await this.#write(tx, current, policy, actor)
    })
    if (isInForce(row) || waitMs === 0) return toEgress(row)
    try {
      return toEgress(await this.#push(row, waitMs))
    } catch (thrown) {
      if (isForLater(thrown)) return toEgress(row)
      throw thrown
    }
  }

  /** Carries to the host what it does not have yet. To be called again and again; a failure of one is no other's. */
  async pushPending(): Promise<void> {
    const { db, logger } = this.#deps
    for (const row of await findEgressPending(db)) {
      try {
        await this.#push(row, PUSH_TIMEOUT_MS)
      } catch (error) {
        logger[isForLater(error) ? 'debug' : 'warn'](
          { capsuleId: row.id, error: errorText(error) },
          'egress.not_pushed',
        )
      }
    }
  }

  async #write(tx: Db, row: CapsuleRow, policy: EgressPolicy, actor: Actor): Promise<CapsuleRow> {
    const { id, team_id: teamId } = row
    const written = await patchCapsule(tx, id, {
      egress: JSON.stringify(policy),
      egress_revision: row.egress_revision + 1,
      updated_at: new Date(),
    })
    const details = { internet: String(policy.internet), allow: told(policy.allow), deny: told(policy.deny) }
    await writeAudit(tx, { teamId, actor, action: 'capsule.egress', resource: { type: 'capsule', id }, details })
    return written ?? row // locked, so it is there
  }

  async #push(row: CapsuleRow, timeoutMs: number): Promise<CapsuleRow> {
    const { db, host } = this.#deps
    const { egress, egressRevision: revision } = egressOf(row)
    const request = { capsuleId: row.id, egress, revision }
    const { capsule } = await host.call((client) => client.setEgress(request, { timeoutMs }))
    return (await patchCapsule(db, row.id, { egress_in_force: revisionOf(capsule) })) ?? row
  }
}

/** As the API shows it. */
function toEgress(row: CapsuleRow): EgressView {
  return { policy: policyOf(row), in_force: isInForce(row) }
}

/** As hosts are told it. */
export function egressOf(row: CapsuleRow): { readonly egress: EgressPolicy; readonly egressRevision: bigint } {
  return { egress: policyOf(row), egressRevision: BigInt(row.egress_revision) }
}

function policyOf({ egress }: CapsuleRow): EgressPolicy {
  return egress ?? DEFAULT_POLICY
}

function isInForce({ egress_revision, egress_in_force }: CapsuleRow): boolean {
  return egress_revision === egress_in_force
}

function revisionOf(capsule: Capsule | undefined): number {
  return Number(capsule?.egressRevision ?? 0n)
}

function isSame(a: EgressPolicy, b: EgressPolicy): boolean {
  const text = ({ internet, allow, deny }: EgressPolicy): string => JSON.stringify([internet, allow, deny])
  return text(a) === text(b)
}

/** The host is away, busy with the capsule, or does not have it yet. */
function isForLater(thrown: unknown): boolean {
  return AppError.is(thrown, 'host_unavailable', 'timeout', 'capsule_not_found')
}

function told(entries: readonly string[]): string | undefined {
  if (entries.length === 0) return undefined
  const text = entries.join(' ')
  return text.length <= TOLD_CHARACTERS ? text : `${text.slice(0, TOLD_CHARACTERS)}… (${entries.length} in all)`
}
