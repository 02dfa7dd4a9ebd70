import type { CapsuleRow, EndOfLife } from '../../store/schema.js'

/** How long a capsule lives after each start, and what becomes of it then. Time asleep does not count. */
export interface Life {
  readonly lifetimeSec: number
  readonly onEnd: EndOfLife
}

/** What a new row has of it. Its end is told anew when the capsule runs. */
export function lifeColumns(life: Life | undefined, nowMs: number = Date.now()) {
  if (life === undefined) return {}
  const { lifetimeSec, onEnd } = life
  return { lifetime_sec: lifetimeSec, on_end: onEnd, ends_at: new Date(nowMs + lifetimeSec * 1000) }
}

/** That of a capsule; `undefined` when it has no end. */
export function lifeOf({ lifetime_sec: lifetimeSec, on_end: onEnd }: CapsuleRow): Life | undefined {
  return lifetimeSec === null || onEnd === null ? undefined : { lifetimeSec, onEnd }
}
