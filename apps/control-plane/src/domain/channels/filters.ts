import { eventPermissions, isOfPlatform } from '@wrenn/protocol'
import { need, type Principal } from '../accounts/index.js'

/** Nobody has events sent somewhere that they may not see themselves. @throws AppError `forbidden` */
export function needEvents(principal: Principal, filters: readonly string[]): void {
  for (const [type, permission] of Object.entries(eventPermissions)) {
    if (filters.some((filter) => covers(filter, type))) need(principal, permission)
  }
}

/** As the trigger that writes deliveries has it; `capsule.state:paused` is of the type before the colon. */
function covers(filter: string, type: string): boolean {
  if (filter === '*') return !isOfPlatform(type)
  return [type, `${type.split('.', 1)[0]}.*`].includes(filter) || filter.startsWith(`${type}:`)
}
