import { errorText, type Logger } from '@wrenn/base'
import type { MemoryReading } from './readings.js'
import { chooseVictims, type PressureCapsule, type Shortage } from './victims.js'

const MIB = 2 ** 20
/** A shortage ends only this far above the reserve, so that the watch does not pause one capsule per reading for ever. */
const RECOVERY = 1.25
/** PSI's shortest average is over 10 s: before that a reading says nothing about the last pause. */
const PSI_SETTLE_MS = 10_000
const RETRY_MS = 30_000

/** Told as the capsule's `pause_reason`. */
export type PressureReason = 'memory_pressure' | 'pool_low'

/** When the host counts as short. */
export interface PressureLimits {
  /** Memory kept available for the host. @default the larger of 512 MiB and 5 % */
  readonly memoryReserveBytes?: number
  /** Room kept in the pool: a QEMU whose memory file finds no block dies by SIGBUS. @default the larger of 1 GiB and 3 % */
  readonly poolReserveBytes?: number
  /** PSI `full avg10` from which the host counts as short of memory, in percent. @default 20 */
  readonly psiFullAvg10Max?: number
}

/** What the watch looks at and what it may do about it. */
export interface PressureWatchOptions {
  readonly readMemory: () => Promise<MemoryReading>
  readonly poolUsage: () => Promise<{ readonly totalBytes: number; readonly freeBytes: number }>
  /** The running capsules; asked once per round, short or not, so that growth can be measured from one to the next. */
  readonly capsules: () => readonly PressureCapsule[] | Promise<readonly PressureCapsule[]>
  /** Pauses one; resolves when its memory is given back. */
  readonly pause: (id: string, reason: PressureReason) => Promise<void>
  readonly logger: Logger
  readonly limits?: PressureLimits
  /** Between two checks. @default 1000 */
  readonly intervalMs?: number
  /** Milliseconds of a clock that never goes back. @default performance.now */
  readonly now?: () => number
}

/** One reading against its reserve; short until it is a quarter above it again. */
export interface ResourceStatus {
  readonly totalBytes: number
  readonly freeBytes: number
  readonly reserveBytes: number
  /** Below the reserve, or not yet clearly above it again. */
  readonly short: boolean
}

/** What the watch has seen last, and done since it started. */
export interface PressureStatus {
  /** `undefined` before the first reading. */
  readonly memory: (ResourceStatus & { readonly psiSomeAvg10?: number; readonly psiFullAvg10?: number }) | undefined
  readonly pool: ResourceStatus | undefined
  /** How many capsules it has paused since it started. */
  readonly paused: Readonly<Record<PressureReason, number>>
  readonly failedPauses: number
  /** A shortage that no pause can end, or a reading that fails: a sentence for people. */
  readonly problem: string | undefined
}

/**
 * Pauses running capsules, one after the other, before the host runs out of memory or the pool fills. `start` begins, disposal
 * ends it and waits for a pause under way.
 */
export class PressureWatch {
  readonly #options: PressureWatchOptions
  readonly #now: () => number
  readonly #paused = { memory_pressure: 0, pool_low: 0 }
  /** When a capsule whose pause failed may be tried again. */
  readonly #retryAt = new Map<string, number>()
  #failedPauses = 0
  #memory: PressureStatus['memory']
  #pool: ResourceStatus | undefined
  #problem: string | undefined
  #settledAt = Number.NEGATIVE_INFINITY
  #timer: NodeJS.Timeout | undefined
  #checking: Promise<void> | undefined
  #closed = false

  constructor(options: PressureWatchOptions) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
  }

  /** Checks from now on, once per interval; does not keep this process alive. */
  start(): void {
    this.#timer ??= setInterval(() => void this.check(), this.#options.intervalMs ?? 1000)
    this.#timer.unref()
  }

  status(): PressureStatus {
    return {
      memory: this.#memory,
      pool: this.#pool,
      paused: { ...this.#paused },
      failedPauses: this.#failedPauses,
      problem: this.#problem,
    }
  }

  /** One round: reads, and pauses until the shortage is over or nothing is left to pause. Joins a round under way; never rejects. */
  check(): Promise<void> {
    this.#checking ??= this.#round().finally(() => {
      this.#checking = undefined
    })
    return this.#checking
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    clearInterval(this.#timer)
    await this.#checking
  }

  async #round(): Promise<void> {
    try {
      const capsules = [...(await this.#options.capsules())]
      const problems = [await this.#relieve('memory', capsules), await this.#relieve('pool', capsules)]
      this.#report(problems.filter((problem) => problem !== undefined).join(' ') || undefined)
    } catch (error) {
      this.#report(`The host's memory and space could not be read: ${errorText(error)}.`)
    }
  }

  /** Takes out of `capsules` what it tried. @returns why the shortage goes on, or `undefined` when there is none (any more). */
  async #relieve(kind: Shortage['kind'], capsules: PressureCapsule[]): Promise<string | undefined> {
    while (!this.#closed) {
      const missingBytes = kind === 'memory' ? await this.#missingMemory() : await this.#missingSpace()
      if (missingBytes <= 0) return undefined
      const victim = this.#nextVictim(capsules, { kind, missingBytes })
      if (victim === undefined) return shortageText(kind, kind === 'memory' ? this.#memory : this.#pool)
      capsules.splice(
        capsules.findIndex(({ id }) => id === victim),
        1,
      )
      await this.#pause(victim, kind === 'memory' ? 'memory_pressure' : 'pool_low')
    }
    return undefined
  }

  async #missingMemory(): Promise<number> {
    const reading = await this.#options.readMemory()
    const reserveBytes = this.#options.limits?.memoryReserveBytes ?? Math.max(512 * MIB, reading.totalBytes * 0.05)
    const resource = assess(reading.totalBytes, reading.availableBytes, reserveBytes, this.#memory?.short)
    const { psiSomeAvg10, psiFullAvg10 } = reading
    this.#memory = {
      ...resource,
      ...(psiSomeAvg10 === undefined ? {} : { psiSomeAvg10 }),
      ...(psiFullAvg10 === undefined ? {} : { psiFullAvg10 }),
    }
    if (resource.short) return reserveBytes * RECOVERY - reading.availableBytes
    const stalls = (psiFullAvg10 ?? 0) >= (this.#options.limits?.psiFullAvg10Max ?? 20)
    // How much is missing PSI does not say: one capsule, then wait for what it changed.
    return stalls && this.#now() >= this.#settledAt ? 1 : 0
  }

  async #missingSpace(): Promise<number> {
    const { totalBytes, freeBytes } = await this.#options.poolUsage()
    const reserveBytes = this.#options.limits?.poolReserveBytes ?? Math.max(1024 * MIB, totalBytes * 0.03)
    this.#pool = assess(totalBytes, freeBytes, reserveBytes, this.#pool?.short)
    return this.#pool.short ? reserveBytes * RECOVERY - freeBytes : 0
  }

  #nextVictim(capsules: readonly PressureCapsule[], shortage: Shortage): string | undefined {
    const now = this.#now()
    const candidates = capsules.filter(({ id }) => (this.#retryAt.get(id) ?? Number.NEGATIVE_INFINITY) <= now)
    return chooseVictims(candidates, shortage)[0]
  }

  async #pause(id: string, reason: PressureReason): Promise<void> {
    const fields = { capsuleId: id, reason, memory: this.#memory, pool: this.#pool }
    // Until then a capsule that is still listed, or cannot be paused, is not asked again.
    this.#retryAt.set(id, this.#now() + RETRY_MS)
    try {
      await this.#options.pause(id, reason)
      this.#paused[reason] += 1
      this.#settledAt = this.#now() + PSI_SETTLE_MS
      this.#options.logger.warn(fields, 'pressure.paused')
    } catch (error) {
      this.#failedPauses += 1
      this.#options.logger.warn({ ...fields, error: errorText(error) }, 'pressure.pause_failed')
    }
    this.#forgetOldRetries()
  }

  #forgetOldRetries(): void {
    const now = this.#now()
    for (const [id, at] of this.#retryAt) if (at <= now) this.#retryAt.delete(id)
  }

  /** Logs a problem when it appears or changes, not at every reading. */
  #report(problem: string | undefined): void {
    const changed = (problem === undefined) !== (this.#problem === undefined)
    this.#problem = problem
    if (!changed) return
    if (problem === undefined) this.#options.logger.info({}, 'pressure.over')
    else this.#options.logger.warn({ problem }, 'pressure.unrelieved')
  }
}

function assess(totalBytes: number, freeBytes: number, reserveBytes: number, wasShort = false): ResourceStatus {
  const short = freeBytes < (wasShort ? reserveBytes * RECOVERY : reserveBytes)
  return { totalBytes, freeBytes, reserveBytes, short }
}

function shortageText(kind: Shortage['kind'], resource: ResourceStatus | undefined): string {
  const mib = (bytes = 0): string => `${Math.floor(bytes / MIB)} MiB`
  const state = `${mib(resource?.freeBytes)} left, ${mib(resource?.reserveBytes)} are kept in reserve`
  if (kind === 'memory') return `The host is short of memory (${state}) and no running capsule is left to pause.`
  return `The pool is nearly full (${state}) and no running capsule grows; delete checkpoints, snapshots or capsules.`
}
