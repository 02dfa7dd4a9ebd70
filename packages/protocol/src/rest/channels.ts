import { z } from 'zod'
import { type ChannelField, channelFilters, channelProviders, channelTargets } from '../channel-targets.js'
import { requestBody, text, timestampSchema } from './common.js'

/** Also a path segment; no other text reaches the database. */
export const channelIdSchema = z
  .string()
  .regex(/^ch-[0-9a-z]{25}$/, 'must be the id of a channel: ch- and 25 characters 0-9a-z')
/** Also a path segment. */
export const deliveryIdSchema = z.uuid().describe('The same with each attempt; webhooks have it as `webhook-id`.')

const nameSchema = text(100, 1).trim().min(1).describe('Unique in the team.')
const filtersSchema = z
  .array(
    z
      .string()
      .refine(
        (filter) => channelFilters.includes(filter),
        'must be a type of event, such as capsule.created, capsule.state:paused, capsule.* or *',
      ),
  )
  .min(1)
  .max(50)
  .describe(
    'Types of events, `capsule.state:paused` and the like, `capsule.*`, or `*` for all of the team; those of hosts only by `host.*` or their names.',
  )
const MAX_FIELD = 2_000
/** `webhook`: `url`, or also `secret`. */
function addressOf([provider, { fields }]: [string, { readonly fields: readonly ChannelField[] }]): string {
  const names = (isNeeded: boolean): string =>
    fields
      .filter((field) => field.isNeeded === isNeeded)
      .map(({ name }) => `\`${name}\``)
      .join(', ')
  const more = names(false)
  return `${provider}: ${names(true)}${more === '' ? '' : `, and if you like ${more}`}.`
}
const configSchema = z
  .record(text(40, 1), text(MAX_FIELD))
  .describe(`${Object.entries(channelTargets).map(addressOf).join(' ')} Encrypted, and in no answer.`)

/** Body of `POST /v1/channels`. */
export const createChannelSchema = requestBody({
  name: nameSchema,
  provider: z.enum(channelProviders),
  config: configSchema,
  events: filtersSchema,
}).meta({ id: 'CreateChannel' })
/** As the server reads it. */
export type CreateChannelInput = z.output<typeof createChannelSchema>

/** Body of `POST /v1/channels/test`. */
export const testChannelSchema = requestBody({
  provider: z.enum(channelProviders),
  config: configSchema,
}).meta({ id: 'TestChannel' })
/** As the server reads it. */
export type TestChannelInput = z.output<typeof testChannelSchema>

/** Body of `PATCH /v1/channels/{id}`: what is left out stays. */
export const updateChannelSchema = requestBody({
  name: nameSchema.optional(),
  events: filtersSchema.optional(),
  enabled: z
    .boolean()
    .optional()
    .describe('false: it is told nothing, and what waits stays for as long as events are tried.'),
}).meta({ id: 'UpdateChannel' })
/** As the server reads it. */
export type UpdateChannelInput = z.output<typeof updateChannelSchema>

/** Body of `PUT /v1/channels/{id}/config`. */
export const replaceChannelConfigSchema = requestBody({
  config: configSchema.describe('All of it; of a webhook without `secret` the secret stays.'),
}).meta({ id: 'ReplaceChannelConfig' })

/** Query of `GET /v1/channels`. */
export const listChannelsQuerySchema = z.object({
  limit: z.coerce.number().int().min(1).max(200).default(200),
  cursor: channelIdSchema.optional().describe('The `x-next-token` header of the page before.'),
})
/** As the server reads it. */
export type ListChannelsQuery = z.output<typeof listChannelsQuerySchema>

/** A channel, without what its provider is addressed with. */
export const channelSchema = z
  .object({
    id: channelIdSchema,
    team_id: z.string(),
    name: z.string(),
    provider: z.string(),
    target: z.string().describe('For people: the host that it sends to.'),
    events: z.array(z.string()),
    enabled: z.boolean(),
    problem: z
      .string()
      .optional()
      .describe(
        'Why the last attempt failed; absent when it did not. One that is gone for good switches the channel off.',
      ),
    waiting: z.int().describe('Events that are to be sent; counted up to 10,000.'),
    retry_at: timestampSchema.optional().describe('When it is tried again, after a failure.'),
    created_at: timestampSchema,
    updated_at: timestampSchema,
  })
  .meta({ id: 'Channel' })
/** A channel on the wire. */
export type Channel = z.infer<typeof channelSchema>

/** Answer to the making of a channel; of a webhook the only one with its secret. */
export const newChannelSchema = channelSchema
  .extend({
    secret: z.string().optional().describe('Of a webhook: what its requests are signed with. Not shown again.'),
  })
  .meta({ id: 'NewChannel' })
/** On the wire. */
export type NewChannel = z.infer<typeof newChannelSchema>

/** Answer of `POST /v1/channels/{id}/rotate-secret`. */
export const channelSecretSchema = z
  .object({
    secret: z.string().describe('Not shown again.'),
    previous_until: timestampSchema.describe('Until then requests are signed with the one before, too.'),
  })
  .meta({ id: 'ChannelSecret' })
/** On the wire. */
export type ChannelSecret = z.infer<typeof channelSecretSchema>

/** Answer of both tests. */
export const channelTestSchema = z
  .object({ status: z.literal('ok'), duration_ms: z.int() })
  .meta({ id: 'ChannelTestResult' })
/** On the wire. */
export type ChannelTestResult = z.infer<typeof channelTestSchema>

export const deliveryStates = ['pending', 'delivered', 'dead'] as const

/** Query of `GET /v1/channels/{id}/deliveries`. */
export const listDeliveriesQuerySchema = z.object({
  state: z.enum(deliveryStates).optional(),
  limit: z.coerce.number().int().min(1).max(200).default(50),
  cursor: z.coerce
    .number()
    .int()
    .min(1)
    .max(Number.MAX_SAFE_INTEGER)
    .optional()
    .describe('`next_cursor` of the page before.'),
})
/** As the server reads it. */
export type ListDeliveriesQuery = z.output<typeof listDeliveriesQuerySchema>

/** What became of one event at one channel. */
export const deliverySchema = z
  .object({
    id: deliveryIdSchema,
    channel_id: z.string(),
    event: z.string(),
    resource_id: z.string(),
    at: timestampSchema.describe('Of the event.'),
    state: z.string().describe('`pending`: to be sent. `delivered`: taken. `dead`: given up; it can be sent again.'),
    attempts: z.int(),
    ended_at: timestampSchema.optional(),
    reason: z.string().optional().describe('Why the last attempt failed.'),
    request: z
      .object({ method: z.string(), url: z.string(), headers: z.record(z.string(), z.string()), body: z.string() })
      .optional()
      .describe('Of the last attempt; secrets are ***, and the body is cut after 4 KiB.'),
    answer: z
      .object({ status: z.int(), body: z.string(), duration_ms: z.int() })
      .optional()
      .describe('To the last attempt; absent when there was none. The body is cut after 2 KiB.'),
  })
  .meta({ id: 'ChannelDelivery' })
/** On the wire. */
export type ChannelDelivery = z.infer<typeof deliverySchema>

/** A page, newest first. */
export const deliveryPageSchema = z
  .object({
    items: z.array(deliverySchema),
    next_cursor: z.int().optional().describe('Absent on the last page.'),
  })
  .meta({ id: 'ChannelDeliveryPage' })
/** On the wire. */
export type ChannelDeliveryPage = z.infer<typeof deliveryPageSchema>

/** Answer of `POST /v1/channels/{id}/resend`. */
export const resentSchema = z.object({ resent: z.int() }).meta({ id: 'ResentDeliveries' })

/** The body that webhooks get. */
export interface WebhookEvent {
  /** The same with each attempt, and as the header `webhook-id`: what came before under it can be left out. */
  readonly id: string
  /** Type of the event, or `channel.test`. */
  readonly event: string
  /** RFC 3339, of the event. */
  readonly timestamp: string
  readonly team_id: string
  readonly resource: { readonly type: string; readonly id: string }
  /** A little of the resource, such as its name and state. */
  readonly data: Readonly<Record<string, unknown>>
}
