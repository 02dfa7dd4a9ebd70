import { errorText, type Logger } from '@wrenn/base'
import { createAuthority } from '@wrenn/certificates'
import type { Guest } from './guest/guest.js'
import { trustAuthority } from './guest/trust.js'
import type { CapsuleRecord, EgressPolicy } from './types.js'

/** A policy with the authority that its rules need: the one that the capsule has, or its first. */
export async function withAuthority(policy: EgressPolicy, before?: EgressPolicy['authority']): Promise<EgressPolicy> {
  const needsOne = policy.intercept === true && before === undefined
  const authority = needsOne ? await createAuthority('Wrenn, egress of one capsule', undefined) : before
  return authority === undefined ? policy : { ...policy, authority }
}

/**
 * Has a guest trust the authority of its rules, if it has any. One whose image or owner has no place for certificates goes on all the
 * same: only requests that rules are for fail there.
 */
export async function tryToTrustEdge(
  guest: Guest,
  { capsuleId, egress }: Pick<CapsuleRecord, 'capsuleId' | 'egress'>,
  logger: Logger,
): Promise<void> {
  const { intercept, authority } = egress
  if (intercept !== true || authority === undefined) return
  try {
    await trustAuthority(guest.client, authority.cert)
  } catch (error) {
    logger.warn({ capsuleId, error: errorText(error) }, 'capsule.edge_not_trusted')
  }
}
