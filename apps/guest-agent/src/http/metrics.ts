import { readFileSync, statfsSync } from 'node:fs'
import { cpus } from 'node:os'

const MIN_WINDOW_MS = 1_000
const MIB = 1024 * 1024

interface CpuTimes {
  readonly busy: number
  readonly total: number
}

/** What `GET /metrics` reports. CPU use is the mean since the question before, so an unasked agent does nothing. */
export class Metrics {
  #times: CpuTimes = { busy: 0, total: 0 }
  #sampledAtMs = Number.NEGATIVE_INFINITY
  #usedPct = 0

  read(): Readonly<Record<string, number>> {
    const memory = memoryInfo()
    const disk = statfsSync('/')
    const used = memory('MemTotal') - memory('MemAvailable')
    return {
      ts: Math.floor(Date.now() / 1000),
      cpu_count: cpus().length,
      cpu_used_pct: this.#cpuUsedPct(),
      mem_total: memory('MemTotal'),
      mem_used: used,
      mem_cache: memory('Cached') + memory('Buffers'),
      mem_total_mib: Math.round(memory('MemTotal') / MIB),
      mem_used_mib: Math.round(used / MIB),
      disk_used: (disk.blocks - disk.bfree) * disk.bsize,
      disk_total: disk.blocks * disk.bsize,
    }
  }

  #cpuUsedPct(): number {
    const now = performance.now()
    if (now - this.#sampledAtMs < MIN_WINDOW_MS) return this.#usedPct
    const times = cpuTimes(readFileSync('/proc/stat', 'utf8'))
    const total = times.total - this.#times.total
    if (total > 0) this.#usedPct = Math.round(((times.busy - this.#times.busy) / total) * 10_000) / 100
    this.#times = times
    this.#sampledAtMs = now
    return this.#usedPct
  }
}

/** Sums of the first line of `/proc/stat`: user nice system idle iowait irq softirq steal (proc(5)). */
export function cpuTimes(stat: string): CpuTimes {
  const fields = (stat.split('\n', 1)[0] ?? '').trim().split(/\s+/).slice(1, 9).map(Number)
  const total = fields.reduce((sum, each) => sum + each, 0)
  return { total, busy: total - (fields[3] ?? 0) - (fields[4] ?? 0) }
}

function memoryInfo(): (name: string) => number {
  const text = readFileSync('/proc/meminfo', 'utf8')
  return (name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * 1024
}
