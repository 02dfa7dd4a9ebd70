import type { CapsuleState } from '@wrenn/sdk'

/** Whether a use of the capsule would wake it. */
export function isAsleep(state: CapsuleState): boolean {
  return state === 'paused' || state === 'pausing' || state === 'resuming' || state === 'hibernated'
}
