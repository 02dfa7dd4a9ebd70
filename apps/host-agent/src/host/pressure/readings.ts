import { readFile } from 'node:fs/promises'
import { isErrno } from '@wrenn/base'

/** How short of memory the host is: by what is left (/proc/meminfo) and by who waits for it (PSI, /proc/pressure/memory). */
export interface MemoryReading {
  readonly totalBytes: number
  /** MemAvailable. Guest memory is a file in the page cache, so part of it counts as available: pressure tells the rest. */
  readonly availableBytes: number
  /** Percent of the last 10 s in which some task waited for memory. Absent where the kernel has no PSI. */
  readonly psiSomeAvg10?: number
  /** The same for all tasks at once: the machine did nothing else. */
  readonly psiFullAvg10?: number
}

/** `root` is where proc is mounted. @default /proc */
export async function readMemory(root = '/proc'): Promise<MemoryReading> {
  const memory = await readFile(`${root}/meminfo`, 'utf8')
  return { ...parseMeminfo(memory), ...parsePressure(await readIfThere(`${root}/pressure/memory`)) }
}

/** @throws Error when the text is no /proc/meminfo. */
export function parseMeminfo(text: string): { totalBytes: number; availableBytes: number } {
  return { totalBytes: kibOf(text, 'MemTotal') * 1024, availableBytes: kibOf(text, 'MemAvailable') * 1024 }
}

function kibOf(text: string, name: string): number {
  const match = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)
  if (!match) throw new Error(`/proc/meminfo has no ${name}`)
  return Number(match[1])
}

/** Of `some avg10=0.00 avg60=…`; empty for what is not there. */
export function parsePressure(text: string): { psiSomeAvg10?: number; psiFullAvg10?: number } {
  const some = /^some avg10=([\d.]+)/m.exec(text)
  const full = /^full avg10=([\d.]+)/m.exec(text)
  return {
    ...(some ? { psiSomeAvg10: Number(some[1]) } : {}),
    ...(full ? { psiFullAvg10: Number(full[1]) } : {}),
  }
}

async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    // No PSI in this kernel (ENOENT), or built in but turned off (EOPNOTSUPP).
    if (isErrno(error, 'ENOENT', 'EOPNOTSUPP', 'ENOTSUP')) return ''
    throw error
  }
}
