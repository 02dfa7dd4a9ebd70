import { AppError } from '@wrenn/base'

/** Of one directory; about 100 bytes of memory each. */
export const MAX_ENTRIES = 2 ** 20
/** Entries of the directories from the root down to the one being compared. */
export const MAX_OPEN_ENTRIES = 2 ** 21
/** Names looked at in one diff. Redirects can show the base image in many places, so no disk bounds this. */
export const MAX_VISITED = 2 ** 24
/** Deeper trees can be made but hardly reached: a path in a system call has at most 4096 bytes. */
export const MAX_PATH_BYTES = 65_536

/** The error for a disk that would take more memory than one comparison may; hostile guests can make such disks. */
export function tooLarge(what: string): AppError {
  return new AppError('too_large', `The disks cannot be compared: ${what} has more entries than a diff can hold.`)
}
