import { readFile } from 'node:fs/promises'
import { cpus, loadavg, release, totalmem } from 'node:os'

const TICKS_PER_SECOND = 100

export interface ProcessUse {
  readonly cpuMs: number
  readonly rssBytes: number
  readonly peakRssBytes: number
}

/** CPU time, resident memory and its peak of a process: proc(5). */
export async function processUse(pid: number): Promise<ProcessUse> {
  const [stat, status] = await Promise.all(['stat', 'status'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8')))
  const fields = (stat ?? '').slice((stat ?? '').lastIndexOf(')') + 2).split(' ')
  const ticks = Number(fields[11]) + Number(fields[12])
  const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status ?? '')?.[1] ?? 0)
  return {
    cpuMs: (ticks * 1000) / TICKS_PER_SECOND,
    rssBytes: kib('VmRSS') * 1024,
    peakRssBytes: kib('VmHWM') * 1024,
  }
}

/** Bytes written so far to the block device below `mountPoint`. */
export async function bytesWritten(mountPoint: string): Promise<number> {
  const mounts = await readFile('/proc/self/mountinfo', 'utf8')
  const line = mounts.split('\n').find((each) => each.split(' ')[4] === mountPoint)
  const source = line?.split(' - ')[1]?.split(' ')[1]
  if (source === undefined)
    throw new Error(`Nothing is mounted at ${mountPoint}; idle write-back needs a pool of its own.`)
  const sectors = (await readFile(`/sys/class/block/${source.replace('/dev/', '')}/stat`, 'utf8'))
    .trim()
    .split(/\s+/)[6]
  return Number(sectors) * 512
}

export function describeMachine(): Record<string, string | number> {
  return {
    cpus: `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}`,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.versions.node,
    load: loadavg()
      .map((value) => value.toFixed(2))
      .join(' '),
  }
}
