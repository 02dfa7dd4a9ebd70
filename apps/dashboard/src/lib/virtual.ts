/** Below this many rows all of them are there: browsers find text in them, and printing shows them. */
export const MIN_VIRTUAL_ROWS = 200
/** Rows beyond each edge, so that a quick scroll shows no gap. */
export const OVERSCAN_ROWS = 8

/** The rows of a list that are there: from `start` to before `end`. */
export interface Slice {
  readonly start: number
  readonly end: number
}

/**
 * @param offsetPx how far the list's first row is above the edge of what is seen
 * @param overscan rows beyond each edge
 */
export function sliceOf(
  count: number,
  rowPx: number,
  offsetPx: number,
  viewPx: number,
  overscan = OVERSCAN_ROWS,
): Slice {
  if (count <= MIN_VIRTUAL_ROWS) return { start: 0, end: count }
  const first = Math.floor(Math.max(0, offsetPx) / rowPx)
  const start = Math.min(Math.max(0, first - overscan), count)
  const end = Math.min(count, first + Math.ceil(viewPx / rowPx) + overscan)
  return { start, end: Math.max(start, end) }
}

/** Of a table whose rows are there in pieces. */
export const PIECE_ROWS = 40

/** A list in pieces of so many rows; a short one, and one with nothing in it, is one piece. */
export function piecesOf<Item>(items: readonly Item[]): (readonly Item[])[] {
  if (items.length <= MIN_VIRTUAL_ROWS) return [items]
  const pieces = Math.ceil(items.length / PIECE_ROWS)
  return Array.from({ length: pieces }, (_, at) => items.slice(at * PIECE_ROWS, (at + 1) * PIECE_ROWS))
}
