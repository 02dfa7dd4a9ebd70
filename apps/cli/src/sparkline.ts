const BLOCKS = '▁▂▃▄▅▆▇█'

/** From when to when a line is, and in how many characters. */
export interface SparkSpan {
  readonly fromMs: number
  readonly toMs: number
  readonly width: number
}

/** One character for each part of the time: the highest value in it, from nothing to the highest of all, or a space where there is none. */
export function sparkline(
  values: readonly { readonly atMs: number; readonly value: number | undefined }[],
  { fromMs, toMs, width }: SparkSpan,
): string {
  const parts = new Array<number | undefined>(width).fill(undefined)
  for (const { atMs, value } of values) {
    const part = Math.floor(((atMs - fromMs) / (toMs - fromMs)) * width)
    if (value === undefined || part < 0 || part >= width) continue
    parts[part] = Math.max(parts[part] ?? 0, value)
  }
  const highest = Math.max(0, ...parts.map((value) => value ?? 0))
  return parts.map((value) => (value === undefined ? ' ' : blockFor(value, highest))).join('')
}

function blockFor(value: number, highest: number): string {
  const level = highest === 0 ? 0 : Math.round((value / highest) * (BLOCKS.length - 1))
  return BLOCKS[level] ?? ' '
}
