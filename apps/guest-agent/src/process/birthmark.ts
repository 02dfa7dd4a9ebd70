import { closeSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs'
import { isErrno } from '@wrenn/base'

/** What every process of a Linux machine has unless something changed it: 50 µs. */
export const USUAL_SLACK_NS = 50_000
/** Marks are below the usual slack, so that no timer gets less precise, and never a round number, as programs choose them. */
const FIRST_MARK = 20_001
const LAST_MARK = 49_999

/**
 * A number that tells which command a process comes from. A child has its parent's timer slack (prctl(2), PR_SET_TIMERSLACK)
 * from birth on, and keeps it through exec, a session, cgroup, namespace, user or parent of its own and an empty environment;
 * only a program that sets its own slack loses it. The kernel's audit session would do the same, but PAM refuses to log another
 * user in where it is set and cannot be changed, as in a container.
 */
export class Birthmarks {
  readonly #fd: number
  #last = FIRST_MARK - 1
  #taken: ReadonlySet<number> = new Set()

  private constructor(fd: number) {
    this.#fd = fd
    // An agent before this one may have left processes.
    this.#taken = marksInUse()
  }

  /** `undefined` where the kernel does not let a process set its slack by a file (before 4.6, some containers). */
  static open(): Birthmarks | undefined {
    try {
      const fd = openSync('/proc/self/timerslack_ns', 'r+')
      try {
        writeSync(fd, String(USUAL_SLACK_NS))
      } catch (error) {
        closeSync(fd)
        throw error
      }
      return new Birthmarks(fd)
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'EACCES', 'EPERM', 'EINVAL')) return undefined
      throw error
    }
  }

  /** A mark that no process has. */
  next(): number {
    for (;;) {
      this.#last += 1
      if (this.#last > LAST_MARK) {
        this.#last = FIRST_MARK
        this.#taken = marksInUse()
      }
      if (this.#last % 100 !== 0 && !this.#taken.has(this.#last)) return this.#last
    }
  }

  /** Runs `fork`, on this thread, so that the child bears `mark`. */
  during<T>(mark: number, fork: () => T): T {
    writeSync(this.#fd, String(mark))
    try {
      return fork()
    } finally {
      writeSync(this.#fd, String(USUAL_SLACK_NS))
    }
  }

  close(): void {
    closeSync(this.#fd)
  }
}

/** The mark that a process bears; absent when it has none, or is gone. */
export function birthmarkOf(pid: number): number | undefined {
  const mark = Number(readIfThere(`/proc/${pid}/timerslack_ns`))
  return mark >= FIRST_MARK && mark <= LAST_MARK ? mark : undefined
}

function marksInUse(): ReadonlySet<number> {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return new Set(pids.map((pid) => birthmarkOf(Number(pid))).filter((mark) => mark !== undefined))
}

/** A file of a process, `undefined` when that is gone or hidden from us. */
export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH', 'EACCES', 'EPERM')) return undefined
    throw error
  }
}
