import { randomHex } from '../system/random.js'

/** A name for what is on its way: an upload, or a tree that moves between file systems. */
export function temporaryName(): string {
  return `.upload-${randomHex(9)}`
}

/** True for such a name; watchers do not report them. */
export function isTemporaryName(name: string): boolean {
  return /^\.upload-[0-9a-f]{18}$/.test(name)
}
