import { median, percentile, round } from './stats.js'

export type Verdict = 'met' | 'missed' | 'info'

/** One line of the table; the same object is the machine-readable result. */
export interface Row {
  readonly id: string
  readonly what: string
  readonly unit: 'ms' | 'MiB/s' | 'files/s' | 'MiB' | '% CPU'
  readonly p50: number | undefined
  readonly p95: number | undefined
  readonly samples: number
  readonly floorP50: number | undefined
  readonly ratio: number | undefined
  readonly budget: string
  readonly verdict: Verdict
  readonly note: string | undefined
}

export interface Measured {
  readonly id: string
  readonly what: string
  readonly unit: Row['unit']
  readonly samples: readonly number[]
  readonly floor?: readonly number[]
  readonly budget?: string
  /** Whether p50 keeps the budget; without it the row only informs. */
  readonly keeps?: (p50: number, floorP50: number) => boolean
  readonly note?: string
}

export function row(measured: Measured): Row {
  const { id, what, unit, samples, floor, budget = '', keeps, note } = measured
  const p50 = median(samples)
  const floorP50 = floor === undefined ? undefined : median(floor)
  return {
    id,
    what,
    unit,
    p50: round(p50),
    p95: round(percentile(samples, ['MiB/s', 'files/s'].includes(unit) ? 5 : 95)),
    samples: samples.length,
    floorP50: floorP50 === undefined ? undefined : round(floorP50),
    ratio: floorP50 === undefined ? undefined : round(p50 / floorP50, 2),
    budget,
    verdict: keeps === undefined ? 'info' : keeps(p50, floorP50 ?? Number.NaN) ? 'met' : 'missed',
    note,
  }
}

const headers = ['what', 'p50', 'p95', 'floor p50', 'ratio', 'budget', 'verdict']

export function table(rows: readonly Row[]): string {
  const cells = [headers, ...rows.map(cellsOf)]
  const widths = headers.map((_, column) => Math.max(...cells.map((line) => line[column]?.length ?? 0)))
  const show = (line: readonly string[]): string => line.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join('  ')
  const lines: string[] = []
  for (const [at, line] of cells.entries()) {
    lines.push(show(line).trimEnd())
    const note = rows[at - 1]?.note
    if (note !== undefined) lines.push(`    ${note}`)
  }
  return lines.join('\n')
}

function cellsOf(line: Row): string[] {
  const number = (value: number | undefined): string => (value === undefined ? '–' : String(value))
  const [p50, p95, floor] = [line.p50, line.p95, line.floorP50].map((value) =>
    value === undefined ? '–' : `${value} ${line.unit}`,
  )
  return [line.what, p50 ?? '–', p95 ?? '–', floor ?? '–', number(line.ratio), line.budget || '–', line.verdict]
}
