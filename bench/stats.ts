/** Nearest-rank percentile of unsorted samples; NaN without any. */
export function percentile(samples: readonly number[], percent: number): number {
  const sorted = [...samples].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? Number.NaN
}

export function median(samples: readonly number[]): number {
  return percentile(samples, 50)
}

export function round(value: number, digits = 1): number {
  const scale = 10 ** digits
  return Math.round(value * scale) / scale
}

export interface Timed<T> {
  readonly ms: number
  readonly value: T
}

export async function timed<T>(work: () => Promise<T>): Promise<Timed<T>> {
  const start = performance.now()
  const value = await work()
  return { ms: performance.now() - start, value }
}

/** Medians of named steps over many runs, in the order of the first run that has them. */
export function medianSteps(runs: readonly (readonly { readonly step: string; readonly ms: number }[])[]): string {
  const names = [...new Set(runs.flatMap((steps) => steps.map(({ step }) => step)))]
  const of = (name: string): number =>
    median(runs.flatMap((steps) => steps.filter(({ step }) => step === name).map(({ ms }) => ms)))
  return names.map((name) => `${name} ${round(of(name), 0)}`).join(', ')
}
