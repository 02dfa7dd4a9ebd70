import { constants } from 'node:os'
import type { ProcessConfig } from '@wrenn/protocol/guest'
import type { CgroupTree } from './cgroup.js'
import type { DiskBudget } from './disk-budget.js'
import { Follower, type SessionEnd } from './follower.js'
import type { LaunchedProcess, LaunchSpec } from './launched-process.js'
import type { OutputKind } from './output-chunk.js'
import { type LogLimits, OutputLog } from './output-log.js'
import { killTree, signalTree } from './process-tree.js'
import { signalText } from './signals.js'
import type { ProcessEnd } from './started-child.js'

const { SIGKILL } = constants.signals
/** A follower this far behind makes the process wait. */
const HIGH_LAG_BYTES = 512 * 1024
/** A timer with more milliseconds would fire at once (a signed 32-bit number inside Node). */
const MAX_TIMER_MS = 2 ** 31 - 1

/** All that one process needs. */
export interface SessionOptions {
  readonly config: ProcessConfig
  readonly spec: LaunchSpec
  readonly tag: string | undefined
  /** Somebody waits for its end: it then keeps the capsule awake. */
  readonly foreground: boolean
  readonly logDirectory: string
  readonly logLimits: LogLimits
  readonly cgroups: CgroupTree | undefined
  /** How many processes the kernel has ended for lack of memory so far. */
  readonly countOomKills: () => number
  /** Of the output logs of all processes. */
  readonly diskBudget: DiskBudget
}

/** One started process: its output, its readers and its end. It lives on without readers. */
export class Session {
  readonly pid: number
  readonly config: ProcessConfig
  readonly tag: string | undefined
  readonly foreground: boolean
  readonly isPty: boolean
  readonly startedAtMs = Date.now()
  readonly log: OutputLog
  readonly #process: LaunchedProcess
  readonly #options: SessionOptions
  readonly #followers = new Set<Follower>()
  readonly #deadlines = new Set<NodeJS.Timeout>()
  #end: SessionEnd | undefined
  #timedOut = false
  /** Until the tree is dead; its end is told then. */
  #killing: Promise<void> | undefined
  readonly #oomKillsBefore: number
  readonly #highLagBytes: number

  constructor(process: LaunchedProcess, options: SessionOptions, onEnd: (session: Session) => void) {
    this.pid = process.tree.pid
    this.config = options.config
    this.tag = options.tag
    this.foreground = options.foreground
    this.isPty = options.spec.pty !== undefined
    this.#process = process
    this.#options = options
    this.log = new OutputLog(options.logDirectory, options.logLimits, () => this.#adjustFlow(), options.diskBudget)
    // Well within what the log keeps in memory: what a reader that keeps up has yet to read is never on the disk, which may be full.
    this.#highLagBytes = Math.min(HIGH_LAG_BYTES, options.logLimits.memoryBytes / 2)
    this.#oomKillsBefore = options.countOomKills()
    process.start({
      onOutput: (kind, chunk) => this.#produce(kind, chunk),
      onExit: (how) => {
        const end = (): void => {
          this.#finish(how)
          onEnd(this)
        }
        if (this.#killing === undefined) end()
        else void this.#killing.then(end)
      },
    })
  }

  /** Set once the process has ended and all its output is in the log. */
  get end(): SessionEnd | undefined {
    return this.#end
  }

  get process(): LaunchedProcess {
    return this.#process
  }

  /** A reader from `fromOffset` on; without one, from the bytes produced next. */
  follow(fromOffset?: number): Follower {
    const follower = new Follower(this, fromOffset ?? this.log.end, () => this.#adjustFlow())
    this.#followers.add(follower)
    return follower
  }

  unfollow(follower: Follower): void {
    this.#followers.delete(follower)
    this.#adjustFlow()
  }

  /** Signals the tree; of one that is killed nothing is left when the end is told. */
  async signal(signal: number): Promise<void> {
    if (signal === SIGKILL) this.#kill()
    else await signalTree(this.#process.tree, signal)
  }

  #kill(): void {
    // What does not die within its time waits in the kernel; nobody has to wait with it, nor when looking for it goes wrong.
    const abandon = (): void => this.#process.abandon()
    this.#killing ??= killTree(this.#process.tree).then(abandon, abandon)
  }

  /** Kills the tree after `timeoutMs`; the end then says so. */
  killAfter(timeoutMs: number): void {
    const firstMs = Math.min(timeoutMs, MAX_TIMER_MS)
    const timer = setTimeout(() => {
      this.#deadlines.delete(timer)
      if (timeoutMs > firstMs) this.killAfter(timeoutMs - firstMs)
      else this.#killTimedOut()
    }, firstMs)
    this.#deadlines.add(timer)
  }

  #killTimedOut(): void {
    if (this.#end !== undefined) return
    this.#timedOut = true
    this.#kill()
  }

  /** Forgets the output; only for a session that ended. */
  dispose(): void {
    this.log.dispose()
    this.#process.release()
  }

  #produce(kind: OutputKind, chunk: Buffer): void {
    this.log.append(kind, chunk)
    for (const follower of this.#followers) follower.wake()
    this.#adjustFlow()
  }

  /**
   * Lets the process write only as fast as the log's disk and the fastest of its attached readers: one that stops reading alone
   * falls behind, and reads from the log what it missed.
   */
  #adjustFlow(): void {
    const live = [...this.#followers].filter((follower) => follower.isLive)
    const allLag = live.length > 0 && live.every((follower) => follower.lag > this.#highLagBytes)
    if (allLag || this.log.isCongested) this.#process.pause()
    else this.#process.resume()
  }

  #finish({ code, signal }: ProcessEnd): void {
    for (const timer of this.#deadlines) clearTimeout(timer)
    if (code !== null) this.#end = this.#exited(code)
    else this.#end = signal === null ? this.#unseen() : this.#signalled(signal)
    for (const follower of this.#followers) follower.wake()
  }

  #exited(exitCode: number): SessionEnd {
    const status = `exit status ${exitCode}`
    return {
      exitCode,
      exited: true,
      status,
      error: exitCode === 0 ? undefined : status,
      signal: undefined,
      timedOut: this.#timedOut,
      oomKilled: false,
    }
  }

  #signalled(signal: number): SessionEnd {
    const status = `signal: ${signalText(signal)}`
    return {
      exitCode: -1,
      exited: false,
      status,
      error: status,
      signal,
      timedOut: this.#timedOut,
      oomKilled:
        signal === SIGKILL && this.#killing === undefined && this.#options.countOomKills() > this.#oomKillsBefore,
    }
  }

  /** Who would have heard how it ended was killed before it. */
  #unseen(): SessionEnd {
    const status = 'ended, nobody saw how: what starts processes in this capsule was killed'
    return {
      exitCode: -1,
      exited: false,
      status,
      error: status,
      signal: undefined,
      timedOut: this.#timedOut,
      oomKilled: false,
    }
  }
}
