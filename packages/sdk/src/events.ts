import type * as wire from '@wrenn/protocol'
import { WrennError } from './errors.js'
import { messagesOf } from './event-lines.js'
import type { Transport } from './transport.js'
import { backoffMs, delay } from './wait.js'

/** The server says every 15 s that it is there. */
const SILENT_MS = 45_000

/** `ready` and `relist` are about the stream itself. A newer server may have more: pass by what you do not know. */
export type WrennEventType = keyof typeof wire.eventPermissions | 'ready' | 'relist' | (string & {})

/** One thing that happened in the team. */
export interface WrennEvent {
  /** To go on after it: `follow({ after })`. */
  readonly id: string
  /**
   * Such as `capsule.state`. `ready`: the stream has begun, and from here on misses nothing. `relist`: too much was missed, so list
   * everything anew.
   */
  readonly type: WrennEventType
  readonly at: Date
  readonly teamId: string
  /** Of what it is about; empty for `ready` and `relist`. */
  readonly resourceId: string
  /**
   * A little of it: `name` and `state` of a capsule, or of a build of a template, `capsule_id` and `name` of a checkpoint, `name` of a template or key, `role` of a member, `used` and `limit` of a
   * quota, `address`, `state` and what is short of a host.
   */
  readonly data: Readonly<Record<string, unknown>>
}

/** How events are followed. */
export interface FollowEventsOptions {
  /** `id` of the last event that was seen. @default from now on, beginning with `ready` */
  readonly after?: string
  /** Ends the iteration. */
  readonly signal?: AbortSignal
  /** Told when the connection breaks, with what broke it, and when there is another. Nothing is missed between the two. */
  readonly onConnection?: (state: 'lost' | 'restored', cause?: unknown) => void
}

/** What happens in the team, while it happens. */
export class Events {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /**
   * Follows the events of the team that the client works in, those that it may see. A connection that breaks is made again, as often as it
   * takes, and goes on after the last event that was given; when that was too long ago, `relist` comes first.
   * @throws WrennError what no other attempt can mend: AuthenticationError, `invalid_request`
   * @example
   * for await (const event of wrenn.events.follow({ signal })) console.log(event.type, event.resourceId)
   */
  async *follow(options: FollowEventsOptions = {}): AsyncGenerator<WrennEvent, void> {
    const { signal, onConnection } = options
    let { after } = options
    let isLost = false
    for (let attempt = 0; signal?.aborted !== true; attempt++) {
      let cause: unknown
      try {
        for await (const event of this.#connect(after, signal)) {
          if (isLost) onConnection?.('restored')
          isLost = false
          attempt = 0
          if (event === undefined) continue
          after = event.id
          yield event
        }
      } catch (error) {
        if (signal?.aborted) return
        if (error instanceof WrennError && !error.isRetryable) throw error
        cause = error
      }
      if (signal?.aborted) return
      if (!isLost) onConnection?.('lost', cause)
      isLost = true
      await delay(backoffMs(attempt), signal).catch(() => {})
    }
  }

  async *#connect(
    after: string | undefined,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<WrennEvent | undefined, void> {
    const silence = new AbortController()
    const signals = signal === undefined ? [silence.signal] : [silence.signal, signal]
    const response = await this.#transport.request('GET', '/v1/events', {
      query: { after },
      // Cut when nothing is heard; `follow` waits between attempts itself.
      signal: AbortSignal.any(signals),
      idempotent: false,
    })
    if (response.body === null) return
    let timer = setTimeout(() => silence.abort(), SILENT_MS)
    try {
      for await (const message of messagesOf(response.body)) {
        clearTimeout(timer)
        yield message && toEvent(JSON.parse(message.data))
        timer = setTimeout(() => silence.abort(), SILENT_MS)
      }
    } finally {
      clearTimeout(timer)
    }
  }
}

function toEvent({ id, type, at, team_id, resource_id, data }: wire.Event): WrennEvent {
  return { id, type, at: new Date(at), teamId: team_id, resourceId: resource_id, data }
}
