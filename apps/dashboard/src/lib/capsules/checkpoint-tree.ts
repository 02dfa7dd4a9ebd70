import type { CheckpointInfo } from '@wrenn/sdk'

/** A checkpoint with its place in the tree. */
export interface TreeRow<Point> {
  readonly checkpoint: Point
  /** 0 for a root. A line of only children stays on one level: depth means that ways part. */
  readonly depth: number
}

type Point = Pick<CheckpointInfo, 'id' | 'parentId'>

/** Parents before children, in the order they were made. One whose parent is gone is a root. */
export function treeRows<P extends Point>(checkpoints: readonly P[]): TreeRow<P>[] {
  const known = new Set(checkpoints.map(({ id }) => id))
  const children = new Map<string | undefined, P[]>()
  for (const checkpoint of checkpoints) {
    const parent = checkpoint.parentId !== undefined && known.has(checkpoint.parentId) ? checkpoint.parentId : undefined
    children.set(parent, [...(children.get(parent) ?? []), checkpoint])
  }
  const rows: TreeRow<P>[] = []
  // A list of its own instead of recursion: a chain may be as long as somebody likes.
  const waiting = (children.get(undefined) ?? []).map((checkpoint) => ({ checkpoint, depth: 0 })).reverse()
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    rows.push(next)
    const below = children.get(next.checkpoint.id) ?? []
    const depth = next.depth + (below.length > 1 ? 1 : 0)
    for (const checkpoint of [...below].reverse()) waiting.push({ checkpoint, depth })
  }
  return rows
}
