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

/** Has a guest trust the authority of its rules, if it has any. @throws as `trustAuthority` */
export async function trustEdge(guest: Guest, { intercept, authority }: EgressPolicy): Promise<void> {
  if (intercept === true && authority !== undefined) await trustAuthority(guest.client, authority.cert)
}

/** The same for a guest that runs already: one whose owner has broken the place of certificates goes on all the same. */
export async function tryToTrustEdge(
  guest: Guest,
  { capsuleId, egress }: Pick<CapsuleRecord, 'capsuleId' | 'egress'>,
  logger: Logger,
): Promise<void> {
  try {
    await trustEdge(guest, egress)
  } catch (error) {
    logger.warn({ capsuleId, error: errorText(error) }, 'capsule.edge_not_trusted')
  }
}
