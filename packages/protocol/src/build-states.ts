/** Where a build is: `draft` until it is started. */
export const buildStates = ['draft', 'waiting', 'building', 'ready', 'error', 'cancelled'] as const
/** One of `buildStates`. */
export type BuildState = (typeof buildStates)[number]
