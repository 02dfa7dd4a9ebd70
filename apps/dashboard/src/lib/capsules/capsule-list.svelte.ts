import type { CapsuleInfo, CapsuleState, Wrenn } from '@wrenn/sdk'
import { CapsuleNotFoundError } from '@wrenn/sdk'
import { type Failure, failureOf } from '../failure.js'
import type { PageEvent } from '../live.svelte.js'
import { FIRST_ROWS, firstRows, listed } from './first-rows.js'

/** A capsule with the state that it is about to have, where something was just asked for. */
export type ShownCapsule = CapsuleInfo & { readonly shownState: CapsuleState }

const PAGE_SIZE = 1_000
/** Changes that come together are asked for together. */
const GATHER_MS = 60
/** From here on one list is cheaper than many calls. */
const MAX_SINGLE_CALLS = 25

const isOver = (state: CapsuleState): boolean => state === 'stopped'

/** The team's capsules, kept up by the events of the page. */
export class CapsuleList {
  readonly #byId = new Map<string, CapsuleInfo>()
  /** States that somebody just asked for, until the platform answers or the capsule is in another one than it was. */
  readonly #expected = new Map<string, { readonly state: CapsuleState; readonly from: CapsuleState | undefined }>()
  /** Grows with each change of the two: thousands of capsules are too many to watch each. */
  #version = $state(0)
  /** A capsule is shown as the same object while nothing of it changes, so that its row need not be looked at. */
  readonly #asTheyAre = new WeakMap<CapsuleInfo, ShownCapsule>()
  isLoaded = $state(false)
  failure = $state.raw<Failure>()
  readonly all = $derived(this.#allShown(this.#version))
  readonly #wrenn: Wrenn
  readonly #changed = new Set<string>()
  #gathering: ReturnType<typeof setTimeout> | undefined
  #loading: Promise<void> | undefined
  #again = false

  constructor(wrenn: Wrenn) {
    this.#wrenn = wrenn
  }

  get(id: string): ShownCapsule | undefined {
    if (this.#version === 0) return undefined
    const info = this.#byId.get(id)
    return info === undefined ? undefined : this.#shown(info)
  }

  /** Lists everything anew; a call that comes meanwhile has another list follow, which sees what has changed since. */
  load(): Promise<void> {
    if (this.#loading !== undefined) {
      this.#again = true
      return this.#loading
    }
    this.#loading = this.#list().finally(() => {
      this.#loading = undefined
      if (!this.#again) return
      this.#again = false
      void this.load()
    })
    return this.#loading
  }

  /** Takes in what happened. */
  apply({ type, resourceId }: PageEvent): void {
    if (type === 'ready' || type === 'relist') void this.load()
    else if (type === 'capsule.removed') this.#take([], [resourceId])
    else if (type.startsWith('capsule.')) this.#noteChange(resourceId)
  }

  /** Puts in what an answer said. */
  put(info: CapsuleInfo): void {
    this.#take([info])
  }

  /**
   * Shows the state that is asked for at once, and the true one again when it was refused.
   * @throws what `call` throws
   */
  async expecting<Answer>(id: string, state: CapsuleState, call: () => Promise<Answer>): Promise<Answer> {
    const expected = { state, from: this.#byId.get(id)?.state }
    this.#expected.set(id, expected)
    this.#version++
    try {
      return await call()
    } finally {
      if (this.#expected.get(id) === expected) this.#expected.delete(id)
      this.#version++
      this.#noteChange(id)
    }
  }

  #shown(info: CapsuleInfo): ShownCapsule {
    const expected = this.#expected.get(info.id)
    if (expected !== undefined) return { ...info, shownState: expected.state }
    const shown = this.#asTheyAre.get(info) ?? { ...info, shownState: info.state }
    this.#asTheyAre.set(info, shown)
    return shown
  }

  /** @param _version What it has to be made anew after. */
  #allShown(_version: number): ShownCapsule[] {
    return Array.from(this.#byId.values(), (info) => this.#shown(info))
  }

  /** Changes together what is shown together. */
  #take(infos: readonly CapsuleInfo[], goneIds: readonly string[] = []): void {
    for (const info of infos) {
      const expected = this.#expected.get(info.id)
      if (expected !== undefined && expected.from !== info.state) this.#expected.delete(info.id)
      if (isOver(info.state)) this.#byId.delete(info.id)
      else this.#byId.set(info.id, info)
    }
    for (const id of goneIds) this.#byId.delete(id)
    this.#version++
  }

  #noteChange(id: string): void {
    this.#changed.add(id)
    this.#gathering ??= setTimeout(() => {
      this.#gathering = undefined
      void this.#refreshChanged()
    }, GATHER_MS)
  }

  async #refreshChanged(): Promise<void> {
    const ids = [...this.#changed]
    this.#changed.clear()
    if (ids.length > MAX_SINGLE_CALLS) return await this.load()
    const found = await Promise.all(ids.map((id) => this.#find(id)))
    const gone = ids.filter((_id, index) => found[index] === 'gone')
    this.#take(
      found.filter((each) => typeof each === 'object'),
      gone,
    )
  }

  /** `undefined` when that could not be known; the failure is shown. */
  async #find(id: string): Promise<CapsuleInfo | 'gone' | undefined> {
    try {
      return (await this.#wrenn.capsules.get(id)).info
    } catch (error) {
      if (error instanceof CapsuleNotFoundError) return 'gone'
      this.failure = failureOf(error)
      return undefined
    }
  }

  async #list(): Promise<void> {
    try {
      const first = this.isLoaded ? [] : await this.#first()
      const found: CapsuleInfo[] = []
      // The first time, few have been all.
      if (!this.isLoaded && first.length < FIRST_ROWS) found.push(...first)
      else for await (const info of this.#wrenn.capsules.list({ states: listed, pageSize: PAGE_SIZE })) found.push(info)
      const ids = new Set(found.map(({ id }) => id))
      this.#take(
        found,
        [...this.#byId.keys()].filter((id) => !ids.has(id)),
      )
      this.failure = undefined
      this.isLoaded = true
    } catch (error) {
      this.failure = failureOf(error)
    }
  }

  /** What a screen shows, before the rest: thousands take a while. */
  async #first(): Promise<CapsuleInfo[]> {
    const found: CapsuleInfo[] = []
    for await (const info of this.#wrenn.capsules.list(firstRows)) {
      found.push(info)
      if (found.length === FIRST_ROWS) break
    }
    this.#take(found)
    return found
  }
}
