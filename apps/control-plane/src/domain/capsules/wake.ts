import { AppError, abortable } from '@wrenn/base'
import { type CapsuleState, isAsleep, isUsable } from '@wrenn/protocol'
import { fromHostError, isNeverSent } from '../../host/errors.js'
import type { HostCalls } from '../../host/host.js'
import type { CapsuleChanges } from '../../store/capsule-changes.js'
import type { Db } from '../../store/database.js'
import { findRollback } from '../../store/rollbacks.js'
import type { CapsuleRow } from '../../store/schema.js'
import type { Capsules } from './capsules.js'
import type { Lifecycle } from './lifecycle.js'
import { noCapsule } from './need-capsule.js'

/** How long the row of a capsule may lag behind what its host does by itself. */
const CATCH_UP_MS = 2_000
const HOST_STATE_TIMEOUT_MS = 5_000
/** A host that refuses although the capsule runs may have been asked in the moment it woke. Twice is no accident. */
const MAX_REFUSALS_AWAKE = 2

interface WakeDeps {
  readonly db: Db
  readonly capsules: Pick<Capsules, 'get' | 'running'>
  readonly lifecycle: Pick<Lifecycle, 'wake'>
  readonly changes: CapsuleChanges
  readonly host: HostCalls
  /** How long a call waits for its capsule. */
  readonly waitMs: number
}

/** A capsule as one team sees it. */
export interface CapsuleRef {
  readonly teamId: string
  readonly id: string
}

interface UseOptions {
  readonly signal?: AbortSignal
  /**
   * What becomes of a call on a capsule that sleeps. `refuse`: it wakes by `auto_resume`, else 409. `hold`: it wakes by
   * `auto_resume`, else the call waits until somebody resumes it. `wait`: the call waits and wakes nobody.
   * @default 'refuse'
   */
  readonly asleep?: 'refuse' | 'hold' | 'wait'
}

/**
 * Makes capsules usable for calls on them. One that starts or resumes is waited for; one that sleeps and has `auto_resume`
 * is woken; and a call that met the moment of a pause is made again.
 */
export class Wake {
  readonly #deps: WakeDeps
  readonly #waking = new Map<string, Promise<CapsuleRow>>()

  constructor(deps: WakeDeps) {
    this.#deps = deps
  }

  /**
   * The capsule, running.
   * @throws AppError `capsule_not_found`, `invalid_state`, `guest_died`, `timeout`, or why it did not start or resume
   */
  async ready(ref: CapsuleRef, options: UseOptions = {}): Promise<CapsuleRow> {
    return (await this.#ready(ref, options)).row
  }

  /** Makes a capsule ready and a call on it, again when the host refuses because the capsule was just being paused. */
  async use<T>(ref: CapsuleRef, call: (row: CapsuleRow) => Promise<T>, options: UseOptions = {}): Promise<T> {
    let row = await this.ready(ref, options)
    const again = (fresh: CapsuleRow): void => {
      row = fresh
    }
    return await this.#persist(ref, () => call(row), options, again)
  }

  /** Makes a call on a capsule that should run, without asking first; the capsule is made ready only if its host refuses. */
  async attempt<T>(ref: CapsuleRef, call: () => Promise<T>, options: UseOptions): Promise<T> {
    return await this.#persist(ref, call, options, () => {})
  }

  /** `ready` after a host refused a call. `slept` is false when, as far as anybody knows, the capsule ran all the time. */
  async afterRefusal(
    ref: CapsuleRef,
    options: UseOptions,
  ): Promise<{ readonly row: CapsuleRow; readonly slept: boolean }> {
    const { row, waited } = await this.#ready(ref, options)
    if (waited) return { row, slept: true }
    if (await this.#runsOnHost(row, anyOf(options.signal))) return { row, slept: false }
    return { row: await this.ready(ref, options), slept: true }
  }

  /** A host that refuses a call has done nothing of it, so it can be made again. */
  async #persist<T>(
    ref: CapsuleRef,
    call: () => Promise<T>,
    options: UseOptions,
    again: (row: CapsuleRow) => void,
  ): Promise<T> {
    for (let refusalsAwake = 0; ; ) {
      try {
        return await call()
      } catch (thrown) {
        const failure = fromHostError(thrown)
        if (options.signal?.aborted || !(await this.#isOfSleep(ref, failure))) throw failure
        const { row, slept } = await this.afterRefusal(ref, options)
        again(row)
        if (!slept) refusalsAwake++
        if (refusalsAwake === MAX_REFUSALS_AWAKE) throw failure
      }
    }
  }

  /** Whether it failed for the capsule sleeps: its host says so, and of one that hibernates there is no host that could. */
  async #isOfSleep({ teamId, id }: CapsuleRef, failure: AppError): Promise<boolean> {
    if (failure.code === 'invalid_state') return true
    if (failure.code !== 'capsule_not_found' && !isNeverSent(failure)) return false
    const { state, stored_state: storedState } = await this.#deps.capsules.get(teamId, id)
    return storedState !== null && isAsleep(state)
  }

  /** Tells the state of a capsule now and whenever it changed, until `signal` ends or the control plane stops. */
  async follow(id: string, tell: (state: CapsuleState) => void, signal: AbortSignal): Promise<void> {
    let last: CapsuleState | undefined
    const look = (row: CapsuleRow | undefined): undefined => {
      if (row === undefined || row.state === last) return
      last = row.state
      tell(last)
    }
    await this.#deps.changes.until(id, look, signal).catch(() => {}) // both ends are the expected ones
  }

  /** The capsule's generation now, when it was rolled back since it had `generation`. */
  async rolledBackSince(id: string, generation: number): Promise<number | undefined> {
    return await findRollback(this.#deps.db, id, generation)
  }

  async #ready(ref: CapsuleRef, options: UseOptions): Promise<{ readonly row: CapsuleRow; readonly waited: boolean }> {
    if (options.asleep === 'wait') return await this.#runsAgain(ref.id, anyOf(options.signal))
    const row = await this.#deps.capsules.get(ref.teamId, ref.id)
    return isUsable(row.state) ? { row, waited: false } : { row: await this.#readied(ref, options), waited: true }
  }

  async #readied({ teamId, id }: CapsuleRef, { signal, asleep }: UseOptions): Promise<CapsuleRow> {
    const { capsules, waitMs } = this.#deps
    const timeUp = AbortSignal.timeout(waitMs)
    const either = anyOf(signal, timeUp)
    try {
      for (;;) {
        const row = await capsules.get(teamId, id)
        if (!isAsleep(row.state)) return await capsules.running(teamId, id)
        if (row.auto_resume) return await abortable(this.#wake(row), either)
        if (row.state === 'resuming') await this.#moved(row, either)
        else if (asleep === 'hold') return (await this.#runsAgain(id, anyOf(signal))).row
        else throw sleeping(row)
      }
    } catch (error) {
      if (AppError.is(error) || !timeUp.aborted || signal?.aborted) throw error
      throw new AppError('timeout', `The capsule did not run within ${waitMs / 1000} s (WRENN_START_WAIT_SEC).`)
    }
  }

  /** Waits, as long as it takes, until the capsule runs; wakes nobody. @throws AppError when it ended instead */
  async #runsAgain(id: string, signal: AbortSignal): Promise<{ readonly row: CapsuleRow; readonly waited: boolean }> {
    let waited = false
    const look = (row: CapsuleRow | undefined): CapsuleRow | undefined => {
      if (row === undefined) throw noCapsule(id)
      if (isUsable(row.state)) return row
      if (!mayRunAgain.has(row.state)) throw ended(row)
      waited = true
      return undefined
    }
    return { row: await this.#deps.changes.until(id, look, signal), waited }
  }

  /** Whether the host, too, says that the capsule runs. If not, its row is given time to follow. */
  async #runsOnHost(row: CapsuleRow, signal: AbortSignal): Promise<boolean> {
    const { host } = this.#deps
    const state = await host
      .call((client) => client.getCapsule({ capsuleId: row.id }, { timeoutMs: HOST_STATE_TIMEOUT_MS, signal }))
      .then(({ capsule }) => capsule?.state)
      .catch(() => undefined) // a host that does not answer says nothing about the capsule
    if (state === 'running') return true
    await this.#moved(row, anyOf(signal, AbortSignal.timeout(CATCH_UP_MS))).catch(() => {})
    signal.throwIfAborted()
    return false
  }

  async #moved(row: CapsuleRow, signal: AbortSignal): Promise<void> {
    const look = (current: CapsuleRow | undefined) => (current?.generation === row.generation ? undefined : true)
    await this.#deps.changes.until(row.id, look, signal)
  }

  /** However many ask, a capsule is woken once. */
  #wake(row: CapsuleRow): Promise<CapsuleRow> {
    const under = this.#waking.get(row.id)
    if (under !== undefined) return under
    const waking = this.#deps.lifecycle
      .wake(row, { waitMs: this.#deps.waitMs })
      .finally(() => this.#waking.delete(row.id))
    this.#waking.set(row.id, waking)
    return waking
  }
}

/** States out of which a capsule may come to run again. A silent host's capsules are `missing`, not gone. */
const mayRunAgain: ReadonlySet<CapsuleRow['state']> = new Set([
  'pausing',
  'paused',
  'hibernated',
  'resuming',
  'missing',
  'starting',
])

function sleeping({ state }: CapsuleRow): AppError {
  return new AppError(
    'invalid_state',
    `The capsule is ${state}. Resume it first, or set auto_resume so that it wakes when it is used.`,
    { details: { state } },
  )
}

function ended(row: CapsuleRow): AppError {
  const { state, exit } = row
  if (state === 'error' && exit !== null) {
    return new AppError('guest_died', `The capsule has ended: ${exit.message}`, { details: { exit } })
  }
  return new AppError('invalid_state', `The capsule is ${state}, not running.`, { details: { state } })
}

/** Ends with the first of them; without any it never ends. */
function anyOf(...signals: readonly (AbortSignal | undefined)[]): AbortSignal {
  return AbortSignal.any(signals.filter((signal) => signal !== undefined))
}
