import { randomBytes } from 'node:crypto'
import { availableParallelism, freemem } from 'node:os'
import { errorText, type Logger } from '@wrenn/base'
import { type Guest, type GuestFactory, unrecordedPlan } from './guest.js'
import { identifyWaiting, warmUp } from './guest-session.js'
import type { Shape, ShapeSnapshot } from './shapes.js'

/** Creates within this window are the demand that sizes a shape's pool. */
const DEMAND_WINDOW_MS = 60_000
/** What a create's caller does first should have the CPU for itself: the pool refills after this much quiet. */
const QUIET_MS = 1_500
/** Memory that the host keeps for itself: no hot VM is made below it. */
const RESERVE_BYTES = 2 * 2 ** 30
const RETRY_AFTER_FAILURE_MS = 10_000
const MAX_FAILURES = 3

interface HotShape {
  readonly snapshot: ShapeSnapshot
  readonly waiting: Guest[]
  readonly demands: number[]
  readonly minimum: number
  failedAtMs: number
  /** In a row. */
  failures: number
}

export interface HotPoolOptions {
  readonly max: number
  /** True while creates are under way: the pool then leaves them the CPU. */
  readonly busy: () => boolean
  readonly logger: Logger
}

/**
 * Restored, warmed and then stopped guests that wait for a create. Sized by demand: as many as were claimed within the last
 * minute per warm-up the host can do, at least the shape's minimum, at most `max`, and none when memory is short.
 */
export class HotPool {
  readonly #factory: GuestFactory
  readonly #options: HotPoolOptions
  readonly #shapes = new Map<string, HotShape>()
  readonly #vmIds = new Set<string>()
  #worker: Promise<void> | undefined
  #closed = false
  #quiet: NodeJS.Timeout | undefined

  constructor(factory: GuestFactory, options: HotPoolOptions) {
    this.#factory = factory
    this.#options = options
  }

  /** Makes a shape eligible; `minimum` guests wait even without demand. */
  offer(snapshot: ShapeSnapshot, minimum: number): void {
    const { key } = snapshot.shape
    if (!this.#shapes.has(key)) {
      this.#shapes.set(key, {
        snapshot,
        waiting: [],
        demands: [],
        minimum,
        failedAtMs: Number.NEGATIVE_INFINITY,
        failures: 0,
      })
    }
    this.wake()
  }

  /** Hands out a waiting guest, vCPUs stopped, or `undefined`. The caller owns it from here on. */
  take(shape: Shape): Guest | undefined {
    const hot = this.#shapes.get(shape.key)
    if (hot === undefined) return undefined
    hot.demands.push(performance.now())
    return hot.waiting.shift()
  }

  /** Whether a VM is one of those that wait, or becomes one. */
  has(vmId: string): boolean {
    return this.#vmIds.has(vmId)
  }

  snapshotOf(shape: Shape): ShapeSnapshot | undefined {
    return this.#shapes.get(shape.key)?.snapshot
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
    this.#worker = this.#refill()
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
      for (const guest of hot.waiting.splice(0)) await this.#remove(guest)
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
        (hot) => hot.waiting.length < this.#target(hot) && performance.now() - hot.failedAtMs > RETRY_AFTER_FAILURE_MS,
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
      const plan = unrecordedPlan(vmId, snapshot.shape, snapshot.shape.image, snapshot.secret)
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
      hot.waiting.push(guest)
      void guest.vm.exited.then(() => {
        this.#vmIds.delete(vmId)
        return this.#forget(hot, guest)
      })
      this.#options.logger.debug({ vmId, shape: snapshot.shape.key }, 'hot_pool.added')
    } catch (error) {
      this.#vmIds.delete(vmId)
      hot.failedAtMs = performance.now()
      // An evicted or damaged snapshot: the next restore of the shape offers a good one again.
      if (++hot.failures >= MAX_FAILURES && hot.waiting.length === 0) this.#shapes.delete(snapshot.shape.key)
      this.#options.logger.warn({ err: errorText(error), shape: snapshot.shape.key }, 'hot_pool.add_failed')
    }
  }

  /** A waiting guest that died by itself must not be handed out. */
  async #forget(hot: HotShape, guest: Guest): Promise<void> {
    const index = hot.waiting.indexOf(guest)
    if (index === -1) return
    hot.waiting.splice(index, 1)
    this.#options.logger.warn({ vmId: guest.resources.vmId }, 'hot_pool.guest_died')
    await this.#remove(guest)
    this.wake()
  }

  async #remove(guest: Guest): Promise<void> {
    guest.client.close()
    await this.#factory.stop(guest.resources, guest.vm)
    await this.#factory.removeFiles(guest.resources.vmId)
  }
}
