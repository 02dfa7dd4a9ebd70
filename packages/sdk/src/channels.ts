import type * as wire from '@wrenn/protocol'
import { date } from './convert.js'
import type { CallOptions, Transport } from './transport.js'

const PAGE_SIZE = 200
/** Each may have 6 KiB of its request and answer. */
const LOG_PAGE_SIZE = 50

/** Who takes what a channel sends. `teams`: a workflow of Microsoft Teams. */
export type ChannelProvider = wire.ChannelProvider

/** What a target is addressed with, by provider: `channelTargets`, docs/channels.md. All of it counts as a secret. */
export type ChannelConfig = Readonly<Record<string, string>>

/** A channel, without what its target is addressed with. */
export interface ChannelInfo {
  readonly id: string
  readonly name: string
  /** One of `ChannelProvider`; a newer server may have others. */
  readonly provider: string
  /** The host that it sends to. */
  readonly target: string
  readonly events: readonly string[]
  readonly isEnabled: boolean
  /** Why the last attempt failed; `undefined` when it did not. */
  readonly problem: string | undefined
  /** Events that are to be sent; counted up to 10,000. */
  readonly waiting: number
  /** When it is tried again, after a failure. */
  readonly retryAt: Date | undefined
  readonly createdAt: Date
  readonly updatedAt: Date
}

/** What a new channel is. */
export interface CreateChannelOptions extends CallOptions {
  /** Of `channelFilters`: types of events, `capsule.state:paused` and the like, `capsule.*`. @default ['*'], all there are */
  readonly events?: readonly string[]
}

/** What changes of a channel; what is left out stays. */
export interface UpdateChannelOptions extends CallOptions {
  readonly name?: string
  readonly events?: readonly string[]
  /** `false`: it is told nothing, and what waits stays for as long as events are tried. */
  readonly enabled?: boolean
}

/** Which deliveries are listed. */
export interface ListDeliveriesOptions extends CallOptions {
  /** `dead`: given up. @default all */
  readonly state?: 'pending' | 'delivered' | 'dead'
}

/** What became of one event at one channel. */
export interface DeliveryInfo {
  /** The same with each attempt; webhooks have it as `webhook-id`. */
  readonly id: string
  readonly event: string
  readonly resourceId: string
  /** Of the event. */
  readonly at: Date
  /** `pending`, `delivered`, `dead`. */
  readonly state: string
  readonly attempts: number
  readonly endedAt: Date | undefined
  /** Why the last attempt failed. */
  readonly reason: string | undefined
  /** Of the last attempt, without secrets. */
  readonly request: wire.ChannelDelivery['request']
  /** To the last attempt; `undefined` when there was none. */
  readonly answer: { readonly status: number; readonly body: string; readonly durationMs: number } | undefined
}

/** Where the team's events are sent to; the client's key needs the scope `admin`. */
export class Channels {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** Newest first. */
  async list(options: CallOptions = {}): Promise<ChannelInfo[]> {
    const channels: ChannelInfo[] = []
    let cursor: string | undefined
    do {
      const query = { limit: PAGE_SIZE, cursor }
      const response = await this.#transport.request('GET', '/v1/channels', { ...options, query })
      const page: wire.Channel[] = await response.json()
      channels.push(...page.map(channelInfo))
      cursor = response.headers.get('x-next-token') || undefined
    } while (cursor !== undefined)
    return channels
  }

  /** @throws WrennError `channel_not_found` */
  async get(id: string, options: CallOptions = {}): Promise<ChannelInfo> {
    return channelInfo(await this.#transport.json<wire.Channel>('GET', pathOf(id), options))
  }

  /**
   * Makes a channel. `secret` is what a webhook's requests are signed with; only this answer has it.
   * @throws WrennError `target_refused`, `conflict` for a name that is taken
   * @example
   * const { secret } = await wrenn.channels.create('ours', 'webhook', { url: 'https://example.com/hook' }, { events: ['capsule.*'] })
   */
  async create(
    name: string,
    provider: ChannelProvider,
    config: ChannelConfig,
    options: CreateChannelOptions = {},
  ): Promise<ChannelInfo & { readonly secret: string | undefined }> {
    const { events = ['*'], ...call } = options
    const json = { name, provider, config, events }
    const made = await this.#transport.json<wire.NewChannel>('POST', '/v1/channels', { ...call, json })
    return { ...channelInfo(made), secret: made.secret }
  }

  /** What waits is tried at once. @throws WrennError `channel_not_found`, `conflict` */
  async update(id: string, options: UpdateChannelOptions): Promise<ChannelInfo> {
    const { name, events, enabled, ...call } = options
    const json = { name, events, enabled }
    return channelInfo(await this.#transport.json<wire.Channel>('PATCH', pathOf(id), { ...call, json }))
  }

  /**
   * Addresses it with something else: all of its config. A webhook keeps its secret unless another is given.
   * @throws WrennError `channel_not_found`, `target_refused`
   */
  async replaceConfig(id: string, config: ChannelConfig, options: CallOptions = {}): Promise<ChannelInfo> {
    const json = { config }
    return channelInfo(await this.#transport.json<wire.Channel>('PUT', `${pathOf(id)}/config`, { ...options, json }))
  }

  /** Makes another secret for a webhook; until `previousUntil` requests are signed with the one before, too. */
  async rotateSecret(
    id: string,
    options: CallOptions = {},
  ): Promise<{ readonly secret: string; readonly previousUntil: Date }> {
    const path = `${pathOf(id)}/rotate-secret`
    const { secret, previous_until: until } = await this.#transport.json<wire.ChannelSecret>('POST', path, options)
    return { secret, previousUntil: new Date(until) }
  }

  /** With what it was still to send, and its log. @throws WrennError `channel_not_found` */
  async delete(id: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', pathOf(id), options)
  }

  /**
   * Sends the event `channel.test` to a target that is not saved.
   * @throws WrennError `channel_test_failed`, whose `details` have `status` and `answer`; `target_refused`
   */
  async test(
    provider: ChannelProvider,
    config: ChannelConfig,
    options: CallOptions = {},
  ): Promise<{ readonly durationMs: number }> {
    return await this.#test('/v1/channels/test', { ...options, json: { provider, config } })
  }

  /** The same through a channel, past what waits. @throws WrennError `channel_not_found`, `channel_test_failed` */
  async testSaved(id: string, options: CallOptions = {}): Promise<{ readonly durationMs: number }> {
    return await this.#test(`${pathOf(id)}/test`, options)
  }

  /** The log of a channel, newest first, page after page as they are asked for. @throws WrennError `channel_not_found` */
  async *deliveries(id: string, options: ListDeliveriesOptions = {}): AsyncGenerator<DeliveryInfo> {
    const { state, ...call } = options
    let cursor: number | undefined
    do {
      const query = { state, limit: LOG_PAGE_SIZE, cursor }
      const path = `${pathOf(id)}/deliveries`
      const page = await this.#transport.json<wire.ChannelDeliveryPage>('GET', path, { ...call, query })
      yield* page.items.map(deliveryInfo)
      cursor = page.next_cursor
    } while (cursor !== undefined)
  }

  /** Sends one again, under its old id. @throws WrennError `delivery_not_found`, `invalid_state` */
  async resend(id: string, deliveryId: string, options: CallOptions = {}): Promise<DeliveryInfo> {
    const path = `${pathOf(id)}/deliveries/${encodeURIComponent(deliveryId)}/resend`
    return deliveryInfo(await this.#transport.json<wire.ChannelDelivery>('POST', path, options))
  }

  /** Sends all again that were given up, in their order. @returns how many @throws WrennError `invalid_state` while it is off */
  async resendDead(id: string, options: CallOptions = {}): Promise<number> {
    return (await this.#transport.json<{ resent: number }>('POST', `${pathOf(id)}/resend`, options)).resent
  }

  async #test(
    path: string,
    options: CallOptions & { readonly json?: object },
  ): Promise<{ readonly durationMs: number }> {
    const { duration_ms: durationMs } = await this.#transport.json<wire.ChannelTestResult>('POST', path, options)
    return { durationMs }
  }
}

function pathOf(id: string): string {
  return `/v1/channels/${encodeURIComponent(id)}`
}

function channelInfo(channel: wire.Channel): ChannelInfo {
  return {
    id: channel.id,
    name: channel.name,
    provider: channel.provider,
    target: channel.target,
    events: channel.events,
    isEnabled: channel.enabled,
    problem: channel.problem,
    waiting: channel.waiting,
    retryAt: date(channel.retry_at),
    createdAt: new Date(channel.created_at),
    updatedAt: new Date(channel.updated_at),
  }
}

function deliveryInfo(delivery: wire.ChannelDelivery): DeliveryInfo {
  const { answer } = delivery
  return {
    id: delivery.id,
    event: delivery.event,
    resourceId: delivery.resource_id,
    at: new Date(delivery.at),
    state: delivery.state,
    attempts: delivery.attempts,
    endedAt: date(delivery.ended_at),
    reason: delivery.reason,
    request: delivery.request,
    answer: answer && { status: answer.status, body: answer.body, durationMs: answer.duration_ms },
  }
}
