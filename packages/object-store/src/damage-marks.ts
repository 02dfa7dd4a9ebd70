import { AppError } from '@wrenn/base'
import type { ObjectStore } from './object-store.js'
import { DAMAGED, type StatePlaces } from './state-places.js'

/**
 * Which chunks and manifests of a team were damaged or missing when they were read. They stay as they are: it may be this machine that reads wrongly. Whoever has their
 * content writes them anew instead of believing what is there.
 */
export class DamageMarks {
  readonly #store: ObjectStore
  readonly #places: StatePlaces

  constructor(store: ObjectStore, places: StatePlaces) {
    this.#store = store
    this.#places = places
  }

  /** Ids of chunks, in hexadecimal digits, and names of states whose manifest it is. */
  async list(signal?: AbortSignal): Promise<ReadonlySet<string>> {
    const { marks } = this.#places
    const found = new Set<string>()
    for await (const { key } of this.#store.list(marks, signal)) found.add(key.slice(marks.length))
    return found
  }

  /** Where it cannot be noted, the next who reads the chunk notes it. */
  async add(id: string, signal?: AbortSignal): Promise<void> {
    try {
      await this.#store.put(this.#places.mark(id), Buffer.alloc(0), signal)
    } catch (error) {
      if (!AppError.is(error, 'object_store_unavailable', 'object_store_refused') && !signal?.aborted) throw error
    }
  }

  async remove(ids: readonly string[], signal?: AbortSignal): Promise<void> {
    if (ids.length > 0)
      await this.#store.remove(
        ids.map((id) => this.#places.mark(id)),
        signal,
      )
  }
}

/**
 * How many chunks and manifests were damaged or missing when they were read, and were not written anew since, by team.
 * @throws AppError as the store does
 */
export async function listDamage(store: ObjectStore, signal?: AbortSignal): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>()
  for await (const { key } of store.list(DAMAGED, signal)) {
    const team = key.slice(DAMAGED.length).split('/')[0] ?? ''
    counts.set(team, (counts.get(team) ?? 0) + 1)
  }
  return counts
}
