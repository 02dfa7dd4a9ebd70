import type { MessageInitShape } from '@bufbuild/protobuf'
import type { StoreKeySchema } from '@wrenn/protocol/host'
import type { Keyring } from '../secrets/index.js'

/** Of a state of hundreds of GiB over a slow line. A host that is gone is noticed long before. */
export const TRANSFER_TIMEOUT_MS = 24 * 3600_000

/** Whose states, and what begins all that the key has sealed that theirs is derived from. */
interface KeyOwner {
  readonly team_id: string
  readonly sealed_by: string
}

/** By which a team's states in the object store are encrypted: hosts are told it in the call, and keep it nowhere. @throws AppError `not_supported` */
export function storeKeyOf(keyring: Keyring, { team_id: teamId, sealed_by: sealedBy }: KeyOwner) {
  const { key, keyId } = keyring.derive(`object store ${teamId}`, sealedBy)
  // Chunks of one key are none of another's.
  return { id: `${teamId}-${keyId}`, key } satisfies MessageInitShape<typeof StoreKeySchema>
}
