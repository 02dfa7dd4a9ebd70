const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
const MINUTE = 60
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

/** `1.4 GiB`: three digits at most. */
export function bytes(count: number): string {
  let value = count
  let unit = 0
  while (value >= 1000 && unit + 1 < UNITS.length) {
    value /= 1024
    unit += 1
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2
  return `${trimmed(value.toFixed(digits))} ${UNITS[unit]}`
}

/** Of memory and disks, whose sizes are in MiB. */
export function mib(count: number): string {
  return bytes(count * 1024 * 1024)
}

/** `2 h 5 min`: the two largest parts. Times below a second are milliseconds. */
export function duration(ms: number): string {
  if (ms < 1000) return `${trimmed(ms.toFixed(ms < 10 ? 1 : 0))} ms`
  const seconds = Math.round(ms / 1000)
  const parts = [
    [Math.floor(seconds / DAY), 'd'],
    [Math.floor((seconds % DAY) / HOUR), 'h'],
    [Math.floor((seconds % HOUR) / MINUTE), 'min'],
    [seconds % MINUTE, 's'],
  ] as const
  const first = parts.findIndex(([count]) => count > 0)
  const shown = parts.slice(first, first + 2).filter(([count]) => count > 0)
  return shown.map(([count, unit]) => `${count} ${unit}`).join(' ')
}

/** `3 min ago`, `in 2 h`, `just now`. */
export function relative(when: Date, now: Date): string {
  const ms = when.getTime() - now.getTime()
  const away = Math.abs(ms)
  if (away < 5_000) return 'just now'
  const [largest = ''] = /^\d+ \S+/.exec(duration(away)) ?? []
  return ms < 0 ? `${largest} ago` : `in ${largest}`
}

/** `12.5`, `1,204`, `0.04`: hours, from seconds of whatever was held. The unit is said beside it. */
export function hours(seconds: number): string {
  const value = seconds / HOUR
  if (value === 0) return '0'
  if (value < 0.01) return '< 0.01'
  return hourFormat(value < 1 ? 2 : value < 100 ? 1 : 0).format(value)
}

function hourFormat(digits: number): Intl.NumberFormat {
  return new Intl.NumberFormat('en', { maximumFractionDigits: digits })
}

/** Making the first format of a page takes a browser longer than all else that the first page needs. */
let momentFormat: Intl.DateTimeFormat | undefined

/** For people, in their own language's form; the exact time goes into `title`. */
export function moment(when: Date): string {
  momentFormat ??= new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' })
  return momentFormat.format(when)
}

/** `1 capsule`, `2 capsules`. */
export function counted(count: number, one: string, several = `${one}s`): string {
  const digits = String(count).replace(/\B(?=(?:\d{3})+$)/g, ',')
  return `${digits} ${count === 1 ? one : several}`
}

function trimmed(number: string): string {
  return number.includes('.') ? number.replace(/\.?0+$/, '') : number
}
