import { randomBytes } from 'node:crypto'
import type { Logger } from '@wrenn/base'
import pg from 'pg'
import { LISTENER } from './database.js'

const RECONNECT_MS = 500
const BEAT_MS = 300
/** A server that is silent this long is not there; a new connection may find the one that is. */
const BEAT_TIMEOUT_MS = 2_000
/** Bounds how long a connection that died silently is still believed. */
const FRESH_MS = 900

interface NotificationsDeps {
  readonly url: string
  readonly logger: Logger
  /** @default 300 */
  readonly beatMs?: number
}

/**
 * What others do to the database, told as they commit it (LISTEN). One connection for the whole process. It shows that notifications
 * come through when it begins, with one to itself, and that it is still there several times a second.
 */
export class Notifications {
  readonly #deps: NotificationsDeps
  /** Nobody else's. */
  readonly #own = `wrenn_own_${randomBytes(8).toString('hex')}`
  readonly #listeners = new Map<string, (payload: string) => void>()
  readonly #onGap: (() => void)[] = []
  #client: pg.Client | undefined
  #retry: NodeJS.Timeout | undefined
  #beat: NodeJS.Timeout | undefined
  #heardAt = Number.NEGATIVE_INFINITY
  #stopped = false

  constructor(deps: NotificationsDeps) {
    this.#deps = deps
  }

  /**
   * Calls `onPayload` for each notification on `channel`, and `onGap` whenever some may have been missed: at each (re)connection. To be
   * called before `start`.
   */
  listen(channel: string, onPayload: (payload: string) => void, onGap: () => void): void {
    this.#listeners.set(channel, onPayload)
    this.#onGap.push(onGap)
  }

  /** Whether all that was committed until 0.9 s ago at the latest has been told. */
  get isFresh(): boolean {
    return performance.now() - this.#heardAt < FRESH_MS
  }

  start(): void {
    void this.#connect()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#retry)
    await this.#client?.end().catch(() => {})
  }

  async #connect(): Promise<void> {
    const client = new pg.Client({
      connectionString: this.#deps.url,
      application_name: LISTENER,
      keepAlive: true,
      connectionTimeoutMillis: BEAT_TIMEOUT_MS,
      query_timeout: BEAT_TIMEOUT_MS,
    })
    this.#client = client
    let ended = false
    let isAsking = false
    const onEnd = (error?: Error): void => {
      if (ended) return
      ended = true
      clearInterval(this.#beat)
      this.#heardAt = Number.NEGATIVE_INFINITY
      client.end().catch(() => {})
      if (this.#stopped) return
      this.#deps.logger.warn({ error: error?.message }, 'notifications.connection_lost')
      this.#retry = setTimeout(() => void this.#connect(), RECONNECT_MS)
    }
    client.on('error', onEnd)
    client.on('end', () => onEnd())
    const beat = async (): Promise<void> => {
      if (ended || isAsking) return
      const askedAt = performance.now()
      isAsking = true
      try {
        await client.query('SELECT 1')
        if (!ended) this.#heardAt = askedAt
      } catch (error) {
        onEnd(asError(error))
      } finally {
        isAsking = false
      }
    }
    client.on('notification', ({ channel, payload = '' }) => {
      if (channel !== this.#own) return this.#listeners.get(channel)?.(payload)
      void beat()
      this.#beat = setInterval(() => void beat(), this.#deps.beatMs ?? BEAT_MS)
    })
    try {
      await client.connect()
      for (const channel of [...this.#listeners.keys(), this.#own]) await client.query(`LISTEN ${channel}`)
      // What happened while nobody listened.
      for (const onGap of this.#onGap) onGap()
      // A pooler in between takes LISTEN and passes nothing on: then this never comes back, and nothing is ever fresh.
      await client.query('SELECT pg_notify($1, $2)', [this.#own, ''])
    } catch (error) {
      onEnd(asError(error))
    }
  }
}

function asError(thrown: unknown): Error | undefined {
  return thrown instanceof Error ? thrown : undefined
}
