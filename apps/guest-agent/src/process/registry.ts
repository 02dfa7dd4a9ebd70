import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { AppError } from '@wrenn/base'
import type { ProcessSelector } from '@wrenn/protocol/guest'
import { birthmarkOf } from './birthmark.js'
import type { CgroupTree } from './cgroup.js'
import { DiskBudget } from './disk-budget.js'
import type { Launcher } from './launcher.js'
import { defaultLogLimits, type LogLimits } from './output-log.js'
import { killTree, type ProcessTree, signalTree } from './process-tree.js'
import { Session, type SessionOptions } from './session.js'
import { signalNumber } from './signals.js'

/** Output and exit status of an ended process stay this long. */
const KEEP_ENDED_MS = 10 * 60_000
/** Memory that ended processes' output may hold together; beyond it the oldest go, though never before `KEEP_AT_LEAST_MS`. */
const ENDED_MEMORY_BYTES = 32 * 1024 * 1024
const MAX_ENDED = 1_000
const KEEP_AT_LEAST_MS = 30_000

/** What all processes of one agent share. */
export interface RegistryDependencies {
  readonly launcher: Launcher
  readonly cgroups: CgroupTree | undefined
  /** Has the output logs in `output`, emptied at the start. */
  readonly stateDir: string
  readonly logLimits?: LogLimits
}

/** What differs from process to process; the rest of its session is the registry's. */
export type StartOptions = Pick<SessionOptions, 'config' | 'spec' | 'tag' | 'foreground'>

interface Ended {
  readonly session: Session
  readonly atMs: number
}

/** Every process the agent started that still runs, and the ended ones whose output can still be asked for. */
export class ProcessRegistry {
  readonly #dependencies: RegistryDependencies
  readonly #running = new Map<number, Session>()
  /** Of processes that run or are being started: whoever lost a connection comes back by tag and must find the right one. */
  readonly #tags = new Set<string>()
  readonly #diskBudget: DiskBudget
  #ended: Ended[] = []
  #sequence = 0
  readonly #sweeper: NodeJS.Timeout

  constructor(dependencies: RegistryDependencies) {
    this.#dependencies = dependencies
    this.#diskBudget = new DiskBudget(() => this.#freeSpace(), dependencies.logLimits?.totalDiskBytes)
    // Logs of an agent that was killed belong to nobody any more.
    rmSync(join(dependencies.stateDir, 'output'), { recursive: true, force: true })
    this.#sweeper = setInterval(() => this.#sweep(), KEEP_AT_LEAST_MS)
    this.#sweeper.unref()
  }

  /** @throws AppError `conflict` when a process with the same tag runs */
  async start(options: StartOptions): Promise<Session> {
    const { tag } = options
    if (tag === undefined) return await this.#start(options)
    if (this.#tags.has(tag)) throw new AppError('conflict', `A process with the tag "${tag}" runs already.`)
    this.#tags.add(tag)
    try {
      return await this.#start(options)
    } catch (error) {
      this.#tags.delete(tag)
      throw error
    }
  }

  async #start(options: StartOptions): Promise<Session> {
    const { launcher, cgroups, stateDir, logLimits } = this.#dependencies
    const launched = await launcher.launch(options.spec)
    const sessionOptions = {
      ...options,
      logDirectory: join(stateDir, 'output', String(this.#sequence++)),
      logLimits: logLimits ?? defaultLogLimits,
      cgroups,
      countOomKills,
      diskBudget: this.#diskBudget,
    }
    const session = new Session(launched, sessionOptions, (ended) => this.#retire(ended))
    this.#running.set(session.pid, session)
    return session
  }

  /** Oldest first. */
  running(): readonly Session[] {
    return [...this.#running.values()]
  }

  ended(): readonly Session[] {
    return this.#ended.map((each) => each.session)
  }

  /**
   * A running process, or one whose end is still kept; of several with one tag the newest.
   * @throws AppError `process_not_found`
   */
  find(selector: ProcessSelector | undefined): Session {
    const found = this.#search(selector, [...this.ended(), ...this.running()])
    if (found !== undefined) return found
    throw this.#notFound(selector)
  }

  /** @throws AppError `process_not_found` also for a process that has ended */
  findRunning(selector: ProcessSelector | undefined): Session {
    const found = this.#search(selector, this.running())
    if (found !== undefined) return found
    throw this.#notFound(selector)
  }

  /** Signals the tree of a running process, also of one that an earlier agent left behind. @throws AppError `process_not_found` */
  async signal(selector: ProcessSelector | undefined, signal: number): Promise<void> {
    const orphan = this.#orphanOf(selector)
    if (orphan === undefined) await this.findRunning(selector).signal(signal)
    else if (signal === signalNumber('SIGKILL')) await killTree(orphan)
    else await signalTree(orphan, signal)
  }

  /** Drops the ended processes and their output: a new capsule must not show what warmed its template. */
  forgetEnded(): void {
    for (const { session } of this.#ended.splice(0)) session.dispose()
  }

  /** Resolves when all output that has left memory is in its files. */
  async flush(): Promise<void> {
    await Promise.all([...this.ended(), ...this.running()].map((session) => session.log.flush()))
  }

  /** Kills what runs and removes what is on disk. */
  close(): void {
    clearInterval(this.#sweeper)
    for (const session of this.running()) void session.signal(9)
    for (const { session } of this.#ended) session.dispose()
  }

  #search(selector: ProcessSelector | undefined, sessions: readonly Session[]): Session | undefined {
    const by = selector?.selector
    if (by === undefined || by.case === undefined) {
      throw new AppError('invalid_request', 'A process selector with pid or tag is required.')
    }
    return sessions.findLast((session) => (by.case === 'pid' ? session.pid === by.value : session.tag === by.value))
  }

  #orphanOf(selector: ProcessSelector | undefined): ProcessTree | undefined {
    const by = selector?.selector
    if (by?.case !== 'pid' || this.#running.has(by.value)) return undefined
    const cgroup = this.#dependencies.cgroups?.orphanWith(by.value)
    return cgroup === undefined ? undefined : { pid: by.value, cgroup, mark: birthmarkOf(by.value) }
  }

  #notFound(selector: ProcessSelector | undefined): AppError {
    const by = selector?.selector
    const subject = `process with ${by?.case ?? 'pid'} ${by?.value ?? ''}`
    const message =
      this.#orphanOf(selector) === undefined
        ? `${subject} not found`
        : `${subject} runs, but the agent that started it ended: its output is lost, it can only be signalled`
    return new AppError('process_not_found', message)
  }

  #retire(session: Session): void {
    // The kernel may have given the number to a newer process already.
    if (this.#running.get(session.pid) === session) this.#running.delete(session.pid)
    if (session.tag !== undefined) this.#tags.delete(session.tag)
    this.#ended.push({ session, atMs: performance.now() })
    if (this.#ended.length > MAX_ENDED) this.#sweep()
  }

  #sweep(): void {
    this.#dependencies.cgroups?.sweepBelow()
    let memory = this.#ended.reduce((sum, { session }) => sum + session.log.memoryBytes, 0)
    let count = this.#ended.length
    this.#ended = this.#ended.filter(({ session, atMs }) => {
      // Not by the wall clock: a pause of hours must not cost a client the output it comes back for.
      const age = performance.now() - atMs
      const crowded = memory > ENDED_MEMORY_BYTES || count > MAX_ENDED
      if (age < KEEP_ENDED_MS && !(crowded && age > KEEP_AT_LEAST_MS)) return true
      memory -= session.log.memoryBytes
      count--
      session.dispose()
      return false
    })
  }

  /** When the disk is full, or logs take too much of it, those of ended processes go first, oldest first; their ends stay. */
  #freeSpace(): boolean {
    return this.#ended.some(({ session }) => session.log.dropDisk())
  }
}

/** How many processes the kernel has ended for lack of memory since it booted. */
function countOomKills(): number {
  return Number(/^oom_kill (\d+)$/m.exec(readFileSync('/proc/vmstat', 'utf8'))?.[1] ?? 0)
}
