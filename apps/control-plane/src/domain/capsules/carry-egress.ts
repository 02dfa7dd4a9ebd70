import { AppError, waitFor } from '@wrenn/base'
import type { EgressPolicy } from '@wrenn/protocol'
import type { HostCalls } from '../../host/host.js'
import {
  findAnyCapsule,
  findCapsules,
  findSealedOtherwise,
  patchCapsule,
  raiseEgress,
  resealEgressRules,
} from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import type { CapsuleRow } from '../../store/schema.js'
import { type Keyring, openSecrets } from '../secrets/index.js'
import { openRules, type SecretRule, sealRules } from './egress-rules.js'
import { fillRules } from './rule-secrets.js'

/** For one call that nobody waits for. */
export const CARRY_TIMEOUT_MS = 10_000
const LOOK_EVERY_MS = 100
/** More is a host that does not take it, and for the next round. */
const MOST_TELLINGS = 5
/** Of a capsule for which nobody has asked for another. */
export const DEFAULT_POLICY: EgressPolicy = { internet: true, allow: [], deny: [] }

interface CarryDeps {
  readonly db: Db
  readonly host: HostCalls
  readonly keyring: Keyring
}

/**
 * As hosts are told it, with what its rules set. Secrets are read after the row: when one has changed since, that is noted in the row, and told next.
 * @throws AppError `not_supported` without their key
 */
export async function egressOf(
  row: CapsuleRow,
  { db, keyring }: Omit<CarryDeps, 'host'>,
): Promise<{
  readonly egress: Omit<EgressPolicy, 'rules'> & { readonly learn: boolean; readonly rules: SecretRule[] }
  readonly egressRevision: bigint
}> {
  const { rules: _names, ...policy } = policyOf(row)
  const opened = openRules(keyring, row)
  // Without names it is of a time when nothing in a value was a reference.
  const rules =
    row.secret_names === null
      ? [...opened]
      : fillRules(opened, await openSecrets({ db, keyring }, row.team_id, row.secret_names))
  return { egress: { ...policy, learn: policy.learn === true, rules }, egressRevision: BigInt(row.egress_revision) }
}

export function policyOf({ egress }: CapsuleRow): EgressPolicy {
  return egress ?? DEFAULT_POLICY
}

export function isInForce({ egress_revision, egress_in_force }: CapsuleRow): boolean {
  return egress_revision === egress_in_force
}

/**
 * Tells the host what a capsule may reach. A host that is ahead of the database, as one is after a backup was restored, would ignore
 * it: the policy in the database is made the newest then. Others may do the same meanwhile, and an answer that was older may be written last:
 * what is not in force then is told again.
 * @returns the row with what the host then has
 * @throws what the host says
 */
export async function carryEgress(deps: CarryDeps, row: CapsuleRow, timeoutMs: number): Promise<CapsuleRow> {
  let newest = row
  for (let time = 0; time < MOST_TELLINGS; time++) {
    newest = await carryOnce(deps, newest, timeoutMs)
    if (isInForce(newest)) break
  }
  return newest
}

async function carryOnce(deps: CarryDeps, row: CapsuleRow, timeoutMs: number): Promise<CapsuleRow> {
  const { db, host } = deps
  const { egress, egressRevision: revision } = await egressOf(row, deps)
  const request = { capsuleId: row.id, egress, revision }
  const { capsule } = await host.call((client) => client.setEgress(request, { timeoutMs }))
  const inForce = Number(capsule?.egressRevision ?? 0n)
  const after = (await patchCapsule(db, row.id, { egress_in_force: inForce })) ?? row
  if (after.egress_revision >= inForce) return after
  return (await raiseEgress(db, row.id, inForce)) ?? (await findAnyCapsule(db, row.id)) ?? after
}

/**
 * Encrypts anew what an older key has encrypted, also of capsules that nobody uses, so that it is not needed any more.
 * @returns capsules whose key is gone already: they stay as they are
 */
export async function resealAllRules({ db, keyring }: Omit<CarryDeps, 'host'>): Promise<readonly string[]> {
  const lost: string[] = []
  for (const id of keyring.isEmpty ? [] : await findSealedOtherwise(db, keyring.sealPrefix)) {
    const row = await findAnyCapsule(db, id)
    try {
      if (row !== undefined) await resealEgressRules(db, row, sealRules(keyring, id, openRules(keyring, row)))
    } catch (error) {
      if (!AppError.is(error, 'not_supported')) throw error
      lost.push(id)
    }
  }
  return lost
}

/**
 * For whoever lets a guest run: a host that lacks the newest policy is told it first. What changes after this is carried by whoever
 * changes it.
 * @throws what the host says; then the guest must not run
 */
export async function carryPendingEgress(deps: CarryDeps, row: CapsuleRow | undefined): Promise<void> {
  if (row === undefined || isInForce(row)) return
  if (row.egress_rules !== null && deps.keyring.isEmpty) await carriedByOthers(deps, row.id)
  else await carryEgress(deps, row, CARRY_TIMEOUT_MS)
}

/** A proxy alone has no key to read rules with: control planes carry each second what is pending. */
async function carriedByOthers({ db }: CarryDeps, id: string): Promise<void> {
  const probe = async (): Promise<true | undefined> => {
    const row = await findAnyCapsule(db, id)
    return row === undefined || isInForce(row) ? true : undefined
  }
  const what = 'a control plane to tell the host the egress policy'
  await waitFor(probe, { timeoutMs: CARRY_TIMEOUT_MS, intervalMs: LOOK_EVERY_MS, what, code: 'host_unavailable' })
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
