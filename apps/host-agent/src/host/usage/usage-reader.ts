import { closeSync, openSync, readSync, statSync } from 'node:fs'
import { isErrno } from '@wrenn/base'
import { allocatedBytes } from '../allocated.js'
import { type TapCounters, tapCounters } from '../network/tap-counters.js'

const PAGE_BYTES = 4096
/** More than /proc/pid/stat, and /proc/pid/net/dev of a namespace with a few links. */
const BUFFER_BYTES = 4096

/** An engine's process, by what no later one with the same pid has. */
export interface GuestProcess {
  readonly pid: number
  readonly pidStartTicks: string
}

/** What a guest has used of its host since its process began, and holds of it now. */
export interface Usage {
  /** User and system time of all threads, in hundredths of a second. */
  readonly cpuTicks: number
  readonly rssBytes: number
  /** Blocks that are allocated to the disk; what it shares with others counts whole. */
  readonly diskBytes: number
  /** What has passed the guest's tap since it was made; `undefined` where there is none. */
  readonly net: TapCounters | undefined
}

/**
 * Measures guests from outside. Its reads are synchronous: the kernel answers them from memory in microseconds, and each detour through
 * the thread pool would cost more than all of them.
 */
export class UsageReader {
  readonly #root: string
  readonly #buffer = Buffer.allocUnsafe(BUFFER_BYTES)

  /** `root` is where proc is mounted. @default /proc */
  constructor(root = '/proc') {
    this.#root = root
  }

  /** `undefined` when the process or the disk is gone, as between two guests of one capsule. */
  read({ pid, pidStartTicks }: GuestProcess, diskPath: string): Usage | undefined {
    const fields = statFields(this.#text(`${pid}/stat`))
    if (fields?.[STAT.startTicks] !== pidStartTicks) return undefined
    const disk = statSync(diskPath, { throwIfNoEntry: false })
    if (disk === undefined) return undefined
    return {
      cpuTicks: Number(fields[STAT.userTicks]) + Number(fields[STAT.systemTicks]),
      rssBytes: Number(fields[STAT.residentPages]) * PAGE_BYTES,
      diskBytes: allocatedBytes(disk),
      net: tapCounters(this.#text(`${pid}/net/dev`)),
    }
  }

  /** What has passed the guest's tap so far; `undefined` when the process is gone or has none. */
  readNet({ pid, pidStartTicks }: GuestProcess): TapCounters | undefined {
    const counters = tapCounters(this.#text(`${pid}/net/dev`))
    // Afterwards: until then it was no other process.
    return statFields(this.#text(`${pid}/stat`))?.[STAT.startTicks] === pidStartTicks ? counters : undefined
  }

  /** Files of proc have no size, and these fit into one read. */
  #text(name: string): string {
    let file: number | undefined
    try {
      file = openSync(`${this.#root}/${name}`, 'r')
      return this.#buffer.toString('latin1', 0, readSync(file, this.#buffer, 0, BUFFER_BYTES, 0))
    } catch (error) {
      // The process ended before or between.
      if (isErrno(error, 'ENOENT', 'ESRCH', 'EINVAL')) return ''
      throw error
    } finally {
      if (file !== undefined) closeSync(file)
    }
  }
}

/** Places among the fields after the name, which are numbers 3 and on in proc_pid_stat(5). */
const STAT = { userTicks: 11, systemTicks: 12, startTicks: 19, residentPages: 21 } as const

/** The name in parentheses may hold anything. */
function statFields(text: string): readonly string[] | undefined {
  const end = text.lastIndexOf(')')
  return end < 0 ? undefined : text.slice(end + 2).split(' ')
}
