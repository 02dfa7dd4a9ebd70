import { z } from 'zod'

/** Of every body that begins a session. */
export const cookiesField = z
  .boolean()
  .default(false)
  .describe('For pages of this platform: tokens come as cookies that scripts cannot read, and not in the answer.')

/** Of every body that signs somebody in. */
export const restoreField = z
  .boolean()
  .default(false)
  .describe('Takes back, where that is still possible, that you have deleted the account.')
