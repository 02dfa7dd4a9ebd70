import type { EgressPolicy } from '@wrenn/protocol'
import type { Host } from '../../host/host.js'
import { findCapsules, patchCapsule, raiseEgress } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import type { CapsuleRow } from '../../store/schema.js'

/** For one call that nobody waits for. */
export const CARRY_TIMEOUT_MS = 10_000
/** Of a capsule for which nobody has asked for another. */
export const DEFAULT_POLICY: EgressPolicy = { internet: true, allow: [], deny: [] }

interface CarryDeps {
  readonly db: Db
  readonly host: Host
}

/** As hosts are told it. */
export function egressOf(row: CapsuleRow): {
  readonly egress: EgressPolicy & { readonly learn: boolean }
  readonly egressRevision: bigint
} {
  const policy = policyOf(row)
  return { egress: { ...policy, learn: policy.learn === true }, egressRevision: BigInt(row.egress_revision) }
}

export function policyOf({ egress }: CapsuleRow): EgressPolicy {
  return egress ?? DEFAULT_POLICY
}

export function isInForce({ egress_revision, egress_in_force }: CapsuleRow): boolean {
  return egress_revision === egress_in_force
}

/**
 * Tells the host what a capsule may reach. A host that is ahead of the database, as one is after a backup was restored, would ignore
 * it: the policy in the database is made the newest then.
 * @returns the row with what the host then has
 * @throws what the host says
 */
export async function carryEgress(deps: CarryDeps, row: CapsuleRow, timeoutMs: number): Promise<CapsuleRow> {
  const { db, host } = deps
  const { egress, egressRevision: revision } = egressOf(row)
  const request = { capsuleId: row.id, egress, revision }
  const { capsule } = await host.call((client) => client.setEgress(request, { timeoutMs }))
  const inForce = Number(capsule?.egressRevision ?? 0n)
  const after = (await patchCapsule(db, row.id, { egress_in_force: inForce })) ?? row
  const raised = after.egress_revision < inForce ? await raiseEgress(db, row.id, inForce) : undefined
  return raised === undefined ? after : await carryEgress(deps, raised, timeoutMs)
}

/**
 * For whoever lets a guest run: a host that lacks the newest policy is told it first. What changes after this is carried by whoever
 * changes it.
 * @throws what the host says; then the guest must not run
 */
export async function carryPendingEgress(deps: CarryDeps, row: CapsuleRow | undefined): Promise<void> {
  if (row !== undefined && !isInForce(row)) await carryEgress(deps, row, CARRY_TIMEOUT_MS)
}

/** The same of capsules that a host has just made by what their rows said before, which is all that it knows. */
export async function carryEgressChangedSince(
  deps: CarryDeps,
  made: readonly { readonly capsuleId: string; readonly egressRevision: bigint }[],
): Promise<void> {
  const known = new Map(made.map(({ capsuleId, egressRevision }) => [capsuleId, Number(egressRevision)]))
  for (const row of await findCapsules(deps.db, [...known.keys()])) {
    // One that is being destroyed meanwhile does not matter any more.
    const isOutdated = row.state === 'starting' && row.egress_revision !== known.get(row.id)
    if (isOutdated) await carryEgress(deps, row, CARRY_TIMEOUT_MS)
  }
}
