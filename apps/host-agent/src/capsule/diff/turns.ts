import { availableParallelism } from 'node:os'
import { AppError } from '@wrenn/base'

/** Of one capsule, the one that works among them. */
const MAX_OF_CAPSULE = 4
const MAX_OF_TEAM = 8
const MAX_OF_HOST = 16
const RETRY_AFTER_SEC = 2

/** How many may work, and wait, at a time. */
export interface TurnLimits {
  /** @default as many as the host has cores, at least two */
  readonly working?: number
  /** @default 4 */
  readonly ofCapsule?: number
  /** @default 8 */
  readonly ofTeam?: number
  /** @default 16 */
  readonly ofHost?: number
}

/** Whose turn it is. */
export interface TurnOwner {
  readonly capsuleId: string
  readonly teamId: string
}

interface Waiting extends TurnOwner {
  readonly begin: () => void
}

/**
 * Turns at reading disks of points in time, which can take a capture and a copy of the guest: one of a capsule at a time, a few on the
 * host, and never all of these of one team, in the order of the calls. A few more wait; who comes then is refused.
 */
export class DiffTurns {
  readonly #limits: Required<TurnLimits>
  readonly #working = new Set<TurnOwner>()
  #waiting: Waiting[] = []

  constructor(limits: TurnLimits = {}) {
    const working = Math.max(2, availableParallelism())
    this.#limits = { working, ofCapsule: MAX_OF_CAPSULE, ofTeam: MAX_OF_TEAM, ofHost: MAX_OF_HOST, ...limits }
  }

  /**
   * Waits for a turn, which lasts until it is disposed.
   * @throws AppError `limit_exceeded` with `retryAfterSec`; the signal's reason
   */
  async take({ capsuleId, teamId }: TurnOwner, signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted()
    const owner = { capsuleId, teamId }
    this.#requirePlace(owner)
    const turn = this.#isFree(owner) ? this.#begin(owner) : await this.#wait(owner, signal)
    return {
      [Symbol.dispose]: () => {
        if (this.#working.delete(turn)) this.#next()
      },
    }
  }

  #begin<T extends TurnOwner>(owner: T): T {
    this.#working.add(owner)
    return owner
  }

  #isFree({ capsuleId, teamId }: TurnOwner): boolean {
    const { working } = this.#limits
    if (this.#working.size >= working || count(this.#working, { capsuleId }) > 0) return false
    return count(this.#working, { teamId }) < Math.max(1, working - 1)
  }

  async #wait(owner: TurnOwner, signal: AbortSignal): Promise<TurnOwner> {
    return await new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#waiting = this.#waiting.filter((each) => each !== one)
        reject(signal.reason)
      }
      const one: Waiting = {
        ...owner,
        begin: () => {
          signal.removeEventListener('abort', leave)
          resolve(one)
        },
      }
      signal.addEventListener('abort', leave, { once: true })
      this.#waiting.push(one)
    })
  }

  /** A turn goes straight to the next in line, so that nobody slips in between. */
  #next(): void {
    const next = this.#waiting.find((each) => this.#isFree(each))
    if (next === undefined) return
    this.#waiting = this.#waiting.filter((each) => each !== next)
    this.#begin(next).begin()
  }

  #requirePlace({ capsuleId, teamId }: TurnOwner): void {
    const all = [...this.#working, ...this.#waiting]
    const bounds = [
      ['this capsule', this.#limits.ofCapsule, count(all, { capsuleId })],
      ['the team', this.#limits.ofTeam, count(all, { teamId })],
      ['this host', this.#limits.ofHost, all.length],
    ] as const
    for (const [whose, max, taken] of bounds) {
      if (taken < max) continue
      const message = `${max} reads and comparisons of points in time of ${whose} are under way or wait; try again when one has ended.`
      throw new AppError('limit_exceeded', message, { details: { retryAfterSec: RETRY_AFTER_SEC } })
    }
  }
}

function count(turns: Iterable<TurnOwner>, whose: Partial<TurnOwner>): number {
  const { capsuleId, teamId } = whose
  let found = 0
  for (const each of turns) if (each.capsuleId === capsuleId || each.teamId === teamId) found++
  return found
}
