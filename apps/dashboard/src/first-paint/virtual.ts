import { ROW_PX } from '../lib/capsules/table.js'
import type { Slice } from '../lib/virtual.js'

/** The head of the page takes at least so much of a screen. */
const ABOVE_PX = 120

export const OVERSCAN_ROWS = 0

/** In the place of the one in `lib`: rows below the screen are not written. */
export function sliceOf(count: number): Slice {
  return { start: 0, end: Math.min(count, Math.ceil((innerHeight - ABOVE_PX) / ROW_PX)) }
}
