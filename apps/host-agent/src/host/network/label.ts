/** Who a link belongs to, kept as its alias: visible in `ip link`, and gone with the link. */
export interface LinkLabel {
  /** WRENN_DIR of the platform that made it. */
  readonly platform: string
  /** Capsule or VM id; `undefined` for a slot that waits in the pool. */
  readonly owner: string | undefined
}

const FREE = '-'

/** As the kernel keeps it: an alias has at most 255 bytes (`IFALIASZ`). */
export function formatLabel({ platform, owner }: LinkLabel): string {
  return `wrenn ${platform} ${owner ?? FREE}`
}

/** `undefined` for an alias that is not ours. */
export function parseLabel(alias: string): LinkLabel | undefined {
  const match = /^wrenn (.+) (\S+)$/.exec(alias)
  if (!match?.[1] || !match[2]) return undefined
  return { platform: match[1], owner: match[2] === FREE ? undefined : match[2] }
}
