import type { Platform } from './platform.js'

/** What every measurement gets. */
export interface Bench {
  readonly platform: Platform
  readonly iterations: number
  /** Longest transfer, in MiB. */
  readonly transferMib: number
  readonly log: (text: string) => void
}
