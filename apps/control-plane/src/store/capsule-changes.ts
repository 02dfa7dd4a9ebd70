import { AppError, errorText, type Logger } from '@wrenn/base'
import pg from 'pg'
import type { Db } from './database.js'
import type { CapsuleRow } from './schema.js'

/** Also the channel's name in the trigger of the migration. */
const CHANNEL = 'capsule_moved'
const RECONNECT_MS = 1_000
/** Where notifications do not come through (a pooler in between), waiting still works, only later. */
const LOOK_EVERY_MS = 2_000

interface CapsuleChangesDeps {
  readonly db: Db
  readonly url: string
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
 * Tells those who wait for capsules when their rows move. One connection listens for the whole process and rows are read once
 * per change, however many wait; the database is not asked at all while nobody waits.
 */
export class CapsuleChanges {
  readonly #deps: CapsuleChangesDeps
  readonly #watched = new Map<string, Watched>()
  #listener: pg.Client | undefined
  #retry: NodeJS.Timeout | undefined
  #look: NodeJS.Timeout | undefined
  #stopped = false

  constructor(deps: CapsuleChangesDeps) {
    this.#deps = deps
  }

  start(): void {
    void this.#listen()
  }

  /** Whoever still waits is told `host_unavailable`. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#retry)
    for (const { waiters } of this.#watched.values()) for (const { cancel } of waiters) cancel(stopping())
    await this.#listener?.end().catch(() => {})
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

  async #listen(): Promise<void> {
    const client = new pg.Client({
      connectionString: this.#deps.url,
      application_name: 'wrenn-control-plane-changes',
      keepAlive: true,
    })
    this.#listener = client
    let ended = false
    const onEnd = (error?: Error): void => {
      if (ended) return
      ended = true
      client.end().catch(() => {})
      if (this.#stopped) return
      this.#deps.logger.warn({ error: error?.message }, 'capsule_changes.connection_lost')
      this.#retry = setTimeout(() => void this.#listen(), RECONNECT_MS)
    }
    client.on('error', onEnd)
    client.on('end', () => onEnd())
    client.on('notification', ({ payload = '' }) => this.#moved(payload))
    try {
      await client.connect()
      await client.query(`LISTEN ${CHANNEL}`)
      // What moved while nobody listened.
      this.#lookAtAll()
    } catch (error) {
      onEnd(error instanceof Error ? error : undefined)
    }
  }
}

function stopping(): AppError {
  return new AppError('host_unavailable', 'The control plane is stopping.')
}
