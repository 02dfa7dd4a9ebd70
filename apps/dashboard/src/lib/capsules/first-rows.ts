import type { CapsuleState, ListCapsulesOptions } from '@wrenn/sdk'

/** All that are not over; those that failed are for somebody to look at. */
export const listed: readonly CapsuleState[] = [
  'pending',
  'starting',
  'running',
  'pausing',
  'paused',
  'resuming',
  'hibernated',
  'stopping',
  'missing',
  'error',
]

/** More than a screen shows, and quickly there. The shell (`app.html`) asks for it. */
export const FIRST_ROWS = 40

export const firstRows: ListCapsulesOptions = { states: listed, pageSize: FIRST_ROWS }
