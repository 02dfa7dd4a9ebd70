import { join } from 'node:path'
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises'
import { errorText, type Logger } from '@wrenn/base'
import type { GuestProcess, Usage } from '../../host/usage/index.js'
import { STATE_FILES } from '../state-files.js'
import type { CapsuleRecord } from '../types.js'

const STEP_SEC = 5
const STEP_MS = STEP_SEC * 1000
/** What is handed out at once and never added to. */
const WINDOW_SEC = 15
const KEEP_SEC = 600
const KEEP_POINTS = KEEP_SEC / STEP_SEC
/** USER_HZ, a constant of the kernel's interface on x86-64 and arm64. */
const TICKS_PER_SECOND = 100
/** Capsules between which others get their turn: some milliseconds. */
const TURN = 32

/** What a capsule used in the step that ended at a time. */
export interface UsagePoint {
  /** Unix time, a multiple of the step. */
  readonly atSec: number
  /** Percent of all vCPUs, 100 at most. */
  readonly cpuPct: number
  readonly memBytes: number
  readonly diskBytes: number
  /** Since the point before; `undefined` where nobody counted. */
  readonly netRxBytes: number | undefined
  readonly netTxBytes: number | undefined
}

/** What the sampler looks at; tests have clocks and guests of their own. */
export interface UsageSamplerDeps {
  readonly records: () => readonly CapsuleRecord[]
  /** `undefined` for a guest that is gone. */
  readonly read: (guest: GuestProcess, diskPath: string) => Usage | undefined
  readonly poolPath: string
  readonly logger: Logger
  /** Unix time in milliseconds. @default the host's clock */
  readonly now?: () => number
  /** Milliseconds by a clock that is never set. @default performance.now */
  readonly elapsed?: () => number
}

/** Of whom a sample was, for the differences to the next one. */
interface Sample {
  readonly guest: GuestProcess
  readonly usage: Usage
  readonly atMs: number
}

/**
 * Knows what each running capsule has used in the last ten minutes, in steps of five seconds. It asks no guest. A capsule that
 * sleeps has no points of that time, and the first look at a new guest makes none: it is what the second is compared with.
 */
export class UsageSampler {
  readonly #deps: UsageSamplerDeps
  readonly #now: () => number
  readonly #elapsed: () => number
  readonly #abort = new AbortController()
  readonly #series = new Map<string, UsagePoint[]>()
  #samples: ReadonlyMap<string, Sample> = new Map()
  #lastSec = 0
  #done: Promise<void> = Promise.resolve()

  constructor(deps: UsageSamplerDeps) {
    this.#deps = deps
    this.#now = deps.now ?? Date.now
    this.#elapsed = deps.elapsed ?? performance.now.bind(performance)
  }

  /** Looks at every step from now on. */
  start(): void {
    this.#done = this.#repeat()
  }

  /** Waits for a look that is under way. */
  async stop(): Promise<void> {
    this.#abort.abort()
    await this.#done
  }

  /** End of the last window that has passed: nothing is added before it any more. 0: none has yet. */
  get untilSec(): number {
    return this.#lastSec - (this.#lastSec % WINDOW_SEC)
  }

  /** By capsule id, from a time on: of all capsules up to `untilSec`, or of some of them up to now. */
  points(fromSec: number, capsuleIds: readonly string[] = []): ReadonlyMap<string, readonly UsagePoint[]> {
    const ids = capsuleIds.length === 0 ? [...this.#series.keys()] : capsuleIds
    const beforeSec = capsuleIds.length === 0 ? this.untilSec : Number.POSITIVE_INFINITY
    const found = new Map<string, readonly UsagePoint[]>()
    for (const id of ids) {
      const points = (this.#series.get(id) ?? []).filter(({ atSec }) => atSec >= fromSec && atSec < beforeSec)
      if (points.length > 0) found.set(id, points)
    }
    return found
  }

  /** One look at all running capsules. */
  async sample(): Promise<void> {
    const atSec = Math.round(this.#now() / STEP_MS) * STEP_SEC
    // Two looks at one step would make two points of one time.
    if (atSec === this.#lastSec) return
    const samples = new Map<string, Sample>()
    let looked = 0
    for (const record of this.#deps.records()) {
      if (record.state !== 'running') continue
      if (++looked % TURN === 0) await nextTurn()
      this.#look(record, atSec, samples)
    }
    this.#samples = samples
    this.#lastSec = atSec
    this.#forget(atSec - KEEP_SEC)
  }

  #look({ capsuleId, vcpus, resources }: CapsuleRecord, atSec: number, samples: Map<string, Sample>): void {
    const guest = resources?.vm
    if (resources === undefined || guest === undefined) return
    const usage = this.#deps.read(guest, join(this.#deps.poolPath, resources.dir, STATE_FILES.disk))
    if (usage === undefined) return
    const sample = { guest, usage, atMs: this.#elapsed() }
    samples.set(capsuleId, sample)
    const point = between(this.#samples.get(capsuleId), sample, vcpus)
    if (point === undefined) return
    const points = this.#series.get(capsuleId) ?? []
    points.push({ atSec, ...point })
    if (points.length > KEEP_POINTS) points.shift()
    this.#series.set(capsuleId, points)
  }

  #forget(beforeSec: number): void {
    for (const [id, points] of this.#series) {
      while (points[0] !== undefined && points[0].atSec <= beforeSec) points.shift()
      if (points.length === 0) this.#series.delete(id)
    }
  }

  async #repeat(): Promise<void> {
    const { signal } = this.#abort
    while (!signal.aborted) {
      const toNextMs = STEP_MS - (this.#now() % STEP_MS)
      await delay(toNextMs, undefined, { signal, ref: false }).catch(() => {})
      if (signal.aborted) return
      await this.sample().catch((error: unknown) =>
        this.#deps.logger.warn({ error: errorText(error) }, 'capsules.not_sampled'),
      )
    }
  }
}

/** `undefined` unless both are of one guest, whose counters only grow. */
function between(before: Sample | undefined, now: Sample, vcpus: number): Omit<UsagePoint, 'atSec'> | undefined {
  if (before?.guest.pid !== now.guest.pid || before.guest.pidStartTicks !== now.guest.pidStartTicks) return undefined
  const seconds = (now.atMs - before.atMs) / 1000
  const ticks = now.usage.cpuTicks - before.usage.cpuTicks
  if (seconds <= 0 || ticks < 0) return undefined
  const { rssBytes: memBytes, diskBytes, net } = now.usage
  return {
    cpuPct: Math.min(100, (ticks / (TICKS_PER_SECOND * seconds * vcpus)) * 100),
    memBytes,
    diskBytes,
    netRxBytes: grown(before.usage.net?.rxBytes, net?.rxBytes),
    netTxBytes: grown(before.usage.net?.txBytes, net?.txBytes),
  }
}

/** Of a counter that has stepped back nobody knows what it counted. */
function grown(before: number | undefined, now: number | undefined): number | undefined {
  if (before === undefined || now === undefined || now < before) return undefined
  return now - before
}
