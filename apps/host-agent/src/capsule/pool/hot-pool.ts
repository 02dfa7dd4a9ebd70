import { randomBytes } from 'node:crypto'
import { availableParallelism, freemem } from 'node:os'
import { errorText, type Logger, noTracer, type Tracer } from '@wrenn/base'
import { type Guest, type GuestFactory, identifyWaiting, unrecordedPlan, warmUp } from '../guest/index.js'
import { isCurrent, type Shape, type ShapeSnapshot } from './shapes.js'

/** Creates within this window are the demand that sizes a shape's pool. */
const DEMAND_WINDOW_MS = 60_000
/** What a create's caller does first should have the CPU for itself: the pool refills after this much quiet. */
const QUIET_MS = 1_500
/** Memory that the host keeps for itself: no hot VM is made below it. */
const RESERVE_BYTES = 2 * 2 ** 30
const RETRY_AFTER_FAILURE_MS = 10_000
const MAX_FAILURES = 3

interface WaitingGuest {
  readonly guest: Guest
  readonly madeFrom: ShapeSnapshot
}

interface HotShape {
  /** What further guests are made from. */
  snapshot: ShapeSnapshot
  readonly waiting: WaitingGuest[]
  readonly demands: number[]
  readonly minimum: number
  failedAtMs: number
  /** In a row. */
  failures: number
}

/** How large the pool may become and when it must keep still. */
export interface HotPoolOptions {
  /** Guests per shape, whatever the demand: WRENN_HOT_POOL_MAX; 0 turns the pool off. */
  readonly max: number
  /** True while creates are under way: the pool then leaves them the CPU. */
  readonly busy: () => boolean
  readonly logger: Logger
  /** @default makes no spans */
  readonly tracer?: Tracer
}

/**
 * Restored, warmed and then stopped guests that wait for a create. Sized by demand: as many as were claimed within the last
 * minute per warm-up the host can do, at least the shape's minimum, at most `max`, and none when memory is short.
 */
export class HotPool {
  readonly #factory: GuestFactory
  readonly #options: HotPoolOptions
  /** By family: a guest of a snapshot that an earlier version of the engine made serves as well as one of the newest. */
  readonly #shapes = new Map<string, HotShape>()
  readonly #vmIds = new Set<string>()
  #worker: Promise<void> | undefined
  #closed = false
  #quiet: NodeJS.Timeout | undefined

  constructor(factory: GuestFactory, options: HotPoolOptions) {
    this.#factory = factory
    this.#options = options
  }

  /**
   * Makes a shape eligible; `minimum` guests wait even without demand. A newer snapshot of it takes the older one's place, and
   * guests that wait are replaced one by one, so that there are always some.
   */
  offer(snapshot: ShapeSnapshot, minimum: number): void {
    const { family } = snapshot.shape
    const hot = this.#shapes.get(family)
    if (hot === undefined) {
      this.#shapes.set(family, {
        snapshot,
        waiting: [],
        demands: [],
        minimum,
        failedAtMs: Number.NEGATIVE_INFINITY,
        failures: 0,
      })
    } else if (isCurrent(snapshot) && hot.snapshot.key !== snapshot.key) {
      hot.snapshot = snapshot
    }
    this.wake()
  }

  /** Hands out a waiting guest, vCPUs stopped, or `undefined`. The caller owns it from here on. */
  take(shape: Shape): Guest | undefined {
    const hot = this.#shapes.get(shape.family)
    if (hot === undefined) return undefined
    hot.demands.push(performance.now())
    return hot.waiting.shift()?.guest
  }

  /** Whether a VM is one of those that wait, or becomes one. */
  has(vmId: string): boolean {
    return this.#vmIds.has(vmId)
  }

  snapshotOf(shape: Shape): ShapeSnapshot | undefined {
    return this.#shapes.get(shape.family)?.snapshot
  }

  status(): { readonly shape: Shape; readonly hot: number; readonly target: number }[] {
    return [...this.#shapes.values()].map((hot) => ({
      shape: hot.snapshot.shape,
      hot: hot.waiting.length,
      target: this.#target(hot),
    }))
  }

  /** Refills after a moment without further calls, so that it does not compete with what a create's caller does next. */
  wakeWhenQuiet(): void {
    clearTimeout(this.#quiet)
    this.#quiet = setTimeout(() => this.wake(), QUIET_MS)
  }

  /** Starts refilling where a shape is below its target; cheap to call often. */
  wake(): void {
    if (this.#closed || this.#worker !== undefined) return
    const { tracer = noTracer } = this.#options
    // Whichever request woke it: the guests are for later ones.
    this.#worker = tracer
      .apart(() => this.#refill())
      .catch((error: unknown) => this.#options.logger.error({ err: error }, 'hot_pool.failed'))
      .finally(() => {
        this.#worker = undefined
      })
  }

  /** Removes every waiting guest. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#quiet)
    await this.#worker
    for (const hot of this.#shapes.values()) {
      for (const { guest } of hot.waiting.splice(0)) await this.#remove(guest)
    }
  }

  #target(hot: HotShape): number {
    const since = performance.now() - DEMAND_WINDOW_MS
    while ((hot.demands[0] ?? since) < since) hot.demands.shift()
    const demand = Math.ceil(hot.demands.length / (4 * availableParallelism()))
    const wanted = Math.min(this.#options.max, Math.max(hot.minimum, demand))
    return freemem() < RESERVE_BYTES ? 0 : wanted
  }

  async #refill(): Promise<void> {
    for (;;) {
      const hungry = [...this.#shapes.values()].find(
        (hot) => upToDate(hot) < this.#target(hot) && performance.now() - hot.failedAtMs > RETRY_AFTER_FAILURE_MS,
      )
      if (hungry === undefined || this.#closed || this.#options.busy()) return
      await this.#add(hungry)
    }
  }

  async #add(hot: HotShape): Promise<void> {
    const { snapshot } = hot
    const vmId = `hot-${randomBytes(8).toString('hex')}`
    this.#vmIds.add(vmId)
    try {
      const { shape, hardware, secret } = snapshot
      const plan = unrecordedPlan(vmId, { spec: shape, hardware, image: shape.image, secret })
      const guest = await this.#factory.restore(plan, snapshot.files)
      try {
        await identifyWaiting(guest.client, snapshot.secret)
        await warmUp(guest.client)
        await guest.vm.pause()
      } catch (error) {
        await this.#remove(guest)
        throw error
      }
      hot.failures = 0
      hot.waiting.push({ guest, madeFrom: snapshot })
      void guest.vm.exited.then(() => {
        this.#vmIds.delete(vmId)
        return this.#forget(hot, guest)
      })
      this.#options.logger.debug({ vmId, shape: snapshot.key }, 'hot_pool.added')
      await this.#replaceOutdated(hot)
    } catch (error) {
      this.#vmIds.delete(vmId)
      hot.failedAtMs = performance.now()
      // An evicted or damaged snapshot: the next restore of the shape offers a good one again.
      if (++hot.failures >= MAX_FAILURES && hot.waiting.length === 0) this.#shapes.delete(snapshot.shape.family)
      this.#options.logger.warn({ err: errorText(error), shape: snapshot.key }, 'hot_pool.add_failed')
    }
  }

  /** A waiting guest that died by itself must not be handed out. */
  async #forget(hot: HotShape, guest: Guest): Promise<void> {
    const index = hot.waiting.findIndex((one) => one.guest === guest)
    if (index === -1) return
    hot.waiting.splice(index, 1)
    this.#options.logger.warn({ vmId: guest.resources.vmId }, 'hot_pool.guest_died')
    await this.#remove(guest)
    this.wake()
  }

  /** Makes room for the guest that was just added. */
  async #replaceOutdated(hot: HotShape): Promise<void> {
    const index = hot.waiting.findIndex(({ madeFrom }) => madeFrom !== hot.snapshot)
    const [outdated] = index === -1 ? [] : hot.waiting.splice(index, 1)
    if (outdated !== undefined) await this.#remove(outdated.guest)
  }

  async #remove(guest: Guest): Promise<void> {
    guest.client.close()
    await this.#factory.stop(guest.resources, guest.vm)
    await this.#factory.removeFiles(guest.resources.vmId)
  }
}

function upToDate({ waiting, snapshot }: HotShape): number {
  return waiting.filter(({ madeFrom }) => madeFrom === snapshot).length
}
