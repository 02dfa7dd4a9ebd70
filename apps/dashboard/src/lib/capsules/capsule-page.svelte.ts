import type { Capsule, CapsuleInfo, CapsuleState, Wrenn } from '@wrenn/sdk'
import { createContext } from 'svelte'
import { type Failure, failureOf } from '../failure.js'
import type { PageEvent } from '../live.svelte.js'

/** One capsule, as its page shows it. */
export class CapsulePage {
  capsule = $state.raw<Capsule>()
  info = $state.raw<CapsuleInfo>()
  failure = $state.raw<Failure>()
  /** Grows with each change of its checkpoints. */
  checkpointsVersion = $state(0)
  /** Grows with each change of it or of anything that is its own. */
  version = $state(0)
  readonly id: string
  readonly #wrenn: Wrenn
  #loading: Promise<void> | undefined
  #again = false

  constructor(wrenn: Wrenn, id: string) {
    this.#wrenn = wrenn
    this.id = id
  }

  get state(): CapsuleState | undefined {
    return this.info?.state
  }

  /** Asks anew; a call that comes while one is under way has another one follow, which sees what has changed since. */
  load(): Promise<void> {
    if (this.#loading !== undefined) {
      this.#again = true
      return this.#loading
    }
    this.#loading = this.#ask().finally(() => {
      this.#loading = undefined
      if (!this.#again) return
      this.#again = false
      void this.load()
    })
    return this.#loading
  }

  put(info: CapsuleInfo): void {
    this.info = info
  }

  /** Takes in what happened. */
  apply({ type, resourceId, data }: PageEvent): void {
    const isOurs = resourceId === this.id || data.capsule_id === this.id
    if (type === 'relist' || type === 'ready' || isOurs) this.version += 1
    if (type === 'relist' || type === 'ready' || (isOurs && type.startsWith('capsule.'))) void this.load()
    if (type === 'relist' || type === 'ready' || (isOurs && type.startsWith('checkpoint.')))
      this.checkpointsVersion += 1
  }

  async #ask(): Promise<void> {
    try {
      if (this.capsule === undefined) this.capsule = await this.#wrenn.capsules.get(this.id)
      else await this.capsule.refresh()
      this.info = this.capsule.info
      this.failure = undefined
    } catch (error) {
      this.failure = failureOf(error)
    }
  }
}

export const [useCapsulePage, provideCapsulePage] = createContext<CapsulePage>()
