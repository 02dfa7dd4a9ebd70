import { InvalidArgumentError } from 'commander'

const sizeUnits: Readonly<Record<string, number>> = { '': 1, m: 1, mib: 1, g: 1024, gib: 1024 }
const timeUnits: Readonly<Record<string, number>> = { ms: 1, '': 1000, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

function parse(text: string, units: Readonly<Record<string, number>>, what: string): number {
  const [, digits, unit = ''] = /^(\d+(?:\.\d+)?)([a-z]*)$/i.exec(text.trim()) ?? []
  const factor = Object.hasOwn(units, unit.toLowerCase()) ? units[unit.toLowerCase()] : undefined
  if (digits === undefined || factor === undefined) throw new InvalidArgumentError(what)
  return Number(digits) * factor
}

/**
 * MiB of `512`, `512m` or `2g`; fractions are rounded.
 * @throws InvalidArgumentError, which commander shows beside the option
 */
export function parseMib(text: string): number {
  return Math.round(parse(text, sizeUnits, 'Give MiB (512, 512m) or GiB (2g).'))
}

/** Milliseconds of `30` (seconds), `500ms`, `5m`, `1h` or `7d`. @throws InvalidArgumentError */
export function parseDurationMs(text: string): number {
  return parse(text, timeUnits, 'Give seconds (30, 30s), minutes (5m), hours (1h), days (7d) or milliseconds (500ms).')
}

/** Digits only: neither signs nor fractions. @throws InvalidArgumentError */
export function parseInteger(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('Give a whole number.')
  return Number(text)
}

/** Collects `--allow A --allow B`. */
export function collect(text: string, before: readonly string[] = []): readonly string[] {
  return [...before, text]
}

/** Collects `--env K=V --env L=W`. */
export function collectPair(text: string, before: Readonly<Record<string, string>> = {}): Record<string, string> {
  const at = text.indexOf('=')
  if (at < 1) throw new InvalidArgumentError('Give KEY=VALUE.')
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) }
}

const steps = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

/** In the largest unit of which there is one, by 1024: `1.5 GiB`. */
export function showBytes(bytes: number): string {
  const step = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), steps.length - 1)
  const value = bytes / 1024 ** step
  return `${step === 0 ? value : value.toFixed(1)} ${steps[step]}`
}

/** What only one checkpoint or snapshot holds of the pool; measured some time after it was made. */
export function showOwnBytes(bytes: number | undefined): string {
  return bytes === undefined ? '-' : showBytes(bytes)
}

/** Milliseconds below 10 s, else seconds: `1234 ms`, `12.3 s`. */
export function showMs(ms: number): string {
  return ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`
}

/** A span of time as people say it: `40 s`, `3 min`, `5 h`, `2 d`. */
export function showSpan(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000))
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`
}
