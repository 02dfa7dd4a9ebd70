import { z } from 'zod'
import { text, timestampSchema } from './common.js'

/** Media type of a stream of events (WHATWG HTML, "Server-sent events"). */
export const EVENT_STREAM_TYPE = 'text/event-stream'

/** One event. */
export const eventSchema = z
  .object({
    id: z.string().describe('For `after`: what comes next in the stream.'),
    type: z
      .string()
      .describe(
        'Such as `capsule.state`. `ready`: the stream has begun, at this place. `relist`: too much was missed, so list everything anew; the stream goes on from now.',
      ),
    at: timestampSchema,
    team_id: z.string(),
    resource_id: z.string().describe('Of what it is about; empty for `ready` and `relist`.'),
    data: z.record(z.string(), z.unknown()).describe('A little of the resource, such as its name and state.'),
  })
  .meta({ id: 'Event' })
/** An event on the wire. */
export type Event = z.infer<typeof eventSchema>

/** Query of `GET /v1/events`. */
export const eventsQuerySchema = z.object({
  after: text(64, 1)
    .optional()
    .describe('`id` of the last event that was seen; the header `Last-Event-ID` does as well. Without: from now on.'),
})
