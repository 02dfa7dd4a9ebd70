import { z } from 'zod'
import type { Permission } from '../permissions.js'
import { text, timestampSchema } from './common.js'

/** Media type of a stream of events (WHATWG HTML, "Server-sent events"). */
export const EVENT_STREAM_TYPE = 'text/event-stream'

/**
 * What is told of in a team, and who is told: no more than a look at the resource would show. `removed`: there is no record any more.
 */
export const eventPermissions = {
  'capsule.created': 'capsules.read',
  'capsule.state': 'capsules.read',
  'capsule.updated': 'capsules.read',
  'capsule.removed': 'capsules.read',
  'checkpoint.created': 'capsules.read',
  'checkpoint.updated': 'capsules.read',
  'checkpoint.removed': 'capsules.read',
  'template.created': 'templates.read',
  'template.updated': 'templates.read',
  'template.removed': 'templates.read',
  'api_key.created': 'keys.read',
  'api_key.revoked': 'keys.read',
  'api_key.removed': 'keys.read',
  'member.joined': 'team.read',
  'member.role': 'team.read',
  'member.left': 'team.read',
} as const satisfies Readonly<Record<string, Permission>>

/** What it takes to be told of events of this type; `undefined`: nobody is, because this version does not know them. */
export function permissionForEvent(type: string): Permission | undefined {
  return Object.entries(eventPermissions).find(([known]) => known === type)?.[1]
}

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
