import { AppError, errorText, type Logger } from '@wrenn/base'
import type { Db } from './database.js'
import type { Notifications } from './notifications.js'
import type { CapsuleRow } from './schema.js'

/** Also the channel's name in the trigger of the migration. */
const CHANNEL = 'capsule_moved'
/** Where notifications do not come through (a pooler in between), waiting still works, only later. */
const LOOK_EVERY_MS = 2_000

interface CapsuleChangesDeps {
  readonly db: Db
  readonly notifications: Notifications
  readonly logger: Logger
  /** @default 2000 */
  readonly lookEveryMs?: number
}

interface Waiter {
  readonly look: (row: CapsuleRow | undefined) => void
  readonly cancel: (reason: unknown) => void
}

interface Watched {
  readonly waiters: Set<Waiter>
  isStale: boolean
  isReading: boolean
}

/**
 * Tells those who wait for capsules when their rows move. Rows are read once per change, however many wait; the database is not asked at
 * all while nobody waits.
 */
export class CapsuleChanges {
  readonly #deps: CapsuleChangesDeps
  readonly #watched = new Map<string, Watched>()
  #look: NodeJS.Timeout | undefined
  #stopped = false

  constructor(deps: CapsuleChangesDeps) {
    this.#deps = deps
    deps.notifications.listen(
      CHANNEL,
      (id) => this.#moved(id),
      () => this.#lookAtAll(),
    )
  }

  /** Whoever still waits is told `host_unavailable`. */
  stop(): void {
    this.#stopped = true
    for (const { waiters } of this.#watched.values()) for (const { cancel } of waiters) cancel(stopping())
  }

  /**
   * Shows `probe` the row of a capsule now and whenever it moved, until it answers something other than `undefined`.
   * @throws what `probe` throws, or the reason of `signal` when that ends first
   */
  async until<T>(id: string, probe: (row: CapsuleRow | undefined) => T | undefined, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted()
    if (this.#stopped) throw stopping()
    return await new Promise<T>((resolve, reject) => {
      const settle = (finish: () => void): void => {
        this.#forget(id, waiter)
        signal.removeEventListener('abort', onAbort)
        finish()
      }
      const cancel = (reason: unknown): void => settle(() => reject(reason))
      const onAbort = (): void => cancel(signal.reason)
      const look = (row: CapsuleRow | undefined): void => {
        try {
          const answer = probe(row)
          if (answer !== undefined) settle(() => resolve(answer))
        } catch (error) {
          cancel(error)
        }
      }
      const waiter = { look, cancel }
      signal.addEventListener('abort', onAbort, { once: true })
      this.#watch(id, waiter)
    })
  }

  #watch(id: string, waiter: Waiter): void {
    const watched = this.#watched.get(id) ?? { waiters: new Set(), isStale: false, isReading: false }
    watched.waiters.add(waiter)
    this.#watched.set(id, watched)
    this.#look ??= setInterval(() => this.#lookAtAll(), this.#deps.lookEveryMs ?? LOOK_EVERY_MS)
    this.#moved(id)
  }

  #forget(id: string, waiter: Waiter): void {
    const watched = this.#watched.get(id)
    watched?.waiters.delete(waiter)
    if (watched?.waiters.size === 0) this.#watched.delete(id)
    if (this.#watched.size > 0) return
    clearInterval(this.#look)
    this.#look = undefined
  }

  #lookAtAll(): void {
    for (const id of this.#watched.keys()) this.#markStale(id)
    void this.#read([...this.#watched.keys()])
  }

  #moved(id: string): void {
    if (this.#markStale(id)) void this.#read([id])
  }

  #markStale(id: string): boolean {
    const watched = this.#watched.get(id)
    if (watched !== undefined) watched.isStale = true
    return watched !== undefined
  }

  /** What moves during a read may be missing in it, so it is read again. */
  async #read(ids: readonly string[]): Promise<void> {
    const mine = ids.flatMap((id) => {
      const watched = this.#watched.get(id)
      return watched === undefined || watched.isReading ? [] : [{ id, watched }]
    })
    for (const { watched } of mine) watched.isReading = true
    try {
      for (let todo = mine; todo.length > 0; todo = todo.filter(({ watched }) => watched.isStale)) {
        for (const { watched } of todo) watched.isStale = false
        const rows = await this.#rows(todo.map(({ id }) => id))
        for (const { id, watched } of todo) for (const { look } of [...watched.waiters]) look(rows.get(id))
      }
    } catch (error) {
      // The next look, or the next change, reads again.
      this.#deps.logger.debug({ error: errorText(error) }, 'capsule_changes.not_read')
    } finally {
      for (const { watched } of mine) watched.isReading = false
    }
  }

  async #rows(ids: readonly string[]): Promise<Map<string, CapsuleRow>> {
    const rows = await this.#deps.db.selectFrom('capsules').selectAll().where('id', 'in', ids).execute()
    return new Map(rows.map((row) => [row.id, row]))
  }
}

function stopping(): AppError {
  return new AppError('host_unavailable', 'The control plane is stopping.')
}
