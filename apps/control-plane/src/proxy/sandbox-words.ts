import type { AppError } from '@wrenn/base'
import { errorKind, type TunnelTarget } from '@wrenn/protocol'

/** A refusal as programs get it. */
export interface Wording {
  readonly status: number
  readonly body: object
}

/** Of a capsule that cannot be reached, clients of the E2B wire are told one thing, whatever the reason. */
const gone: ReadonlySet<string> = new Set(['capsule_not_found', 'invalid_state', 'capsule_ended', 'guest_died'])

/** A refusal in the words that clients of the E2B wire compare. */
export function sandboxWords(error: AppError, { capsuleId: sandboxId, port }: TunnelTarget): Wording {
  if (gone.has(error.code)) {
    return { status: 502, body: { sandboxId, message: 'The sandbox was not found', code: 502 } }
  }
  if (error.code === 'port_closed') {
    const message = 'The sandbox is running but port is not open'
    return { status: 502, body: { sandboxId, message, port, code: 502 } }
  }
  const { status } = errorKind(error.code)
  const { message } = error
  const isOfAgent = error.code === 'unauthorized' || error.code === 'not_found'
  return { status, body: isOfAgent ? { code: status, message } : { sandboxId, message, port, code: status } }
}
