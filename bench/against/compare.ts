import { median, percentile, round } from '../stats.js'

/** One thing, measured on both builds in turn. */
export interface Comparison {
  readonly what: string
  readonly turns: number
  /** Medians in ms. */
  readonly here: number
  readonly there: number
  /** Median over the turns of here by there; below 1 when this checkout is faster. */
  readonly ratio: number
  /** Its quartiles over the turns: whether the machine was quiet enough to tell. */
  readonly from: number
  readonly to: number
}

/** Samples of the same turn belong together, because the machine was the same then. */
export function compare(what: string, here: readonly number[], there: readonly number[]): Comparison {
  const ratios = here.map((ms, turn) => ms / (there[turn] ?? Number.NaN))
  const quartile = (percent: number): number => round(percentile(ratios, percent), 2)
  return {
    ...{ what, turns: ratios.length },
    here: round(median(here)),
    there: round(median(there)),
    ratio: round(median(ratios), 2),
    from: quartile(25),
    to: quartile(75),
  }
}

/** In Markdown. */
export function comparisonTable(rows: readonly Comparison[]): string {
  const lines = rows.map(({ what, turns, here, there, ratio, from, to }) =>
    ['', what, `${here} ms`, `${there} ms`, `**${ratio}**`, `${from}–${to}`, turns, ''].join(' | ').trim(),
  )
  return [
    '| what | here p50 | there p50 | ratio | its quartiles | turns |',
    '|---|---|---|---|---|---|',
    ...lines,
  ].join('\n')
}
