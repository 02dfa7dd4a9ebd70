import { Readable } from 'node:stream'
import { EVENT_STREAM_TYPE, type Event, eventsQuerySchema } from '@wrenn/protocol'
import { z } from 'zod'
import type { Follower } from '../../domain/events/index.js'
import { principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { errors } from '../schemas.js'

/** Whoever has taken nothing for so long, heartbeats included, is not there any more. */
const STALLED_MS = 60_000

const stream = z
  .any()
  .meta({ type: 'string' })
  .describe('Server-sent events: `id` and `event` are those of the Event in `data`, comments are signs of life.')

/** What happens in the team, while it happens. */
export function eventRoutes(app: App, { events, keyWatch }: Services): void {
  app.get(
    '/v1/events',
    {
      exposeHeadRoute: false,
      config: { permission: 'capsules.read' },
      schema: {
        tags: ['events'],
        summary: 'Follow what happens in the team: capsules, checkpoints, templates, builds, keys, members and quotas.',
        description:
          'A stream of server-sent events that goes on until either side ends it: the client, or the platform when the key or session ends or may do something else. Events that the caller may not see are left out; who runs the platform is told of its hosts, too. It is taken up again after the last event that was seen; after a day, or 10,000 events, with `relist`. At most 100 at a time for a team, else 429 `limit_exceeded`.',
        produces: [EVENT_STREAM_TYPE],
        querystring: eventsQuerySchema,
        response: { 200: stream, ...errors },
      },
    },
    async (request, reply) => {
      const principal = principalOf(request)
      const last = request.headers['last-event-id']
      const follower = events.follow(principal, request.query.after ?? (last === undefined ? undefined : String(last)))
      const watch = keyWatch.follow(principal, () => follower[Symbol.dispose]())
      const leave = (): void => {
        follower[Symbol.dispose]()
        watch[Symbol.dispose]()
      }
      reply.raw.once('close', leave)
      // It went away while its key was looked up: nobody tells of that again.
      if (reply.raw.destroyed) leave()
      reply.raw.setTimeout(STALLED_MS, () => reply.raw.destroy())
      void reply.type(EVENT_STREAM_TYPE).header('cache-control', 'no-store').header('x-accel-buffering', 'no')
      return await reply.send(Readable.from(lines(follower), { objectMode: false }))
    },
  )
}

/** Something at once, so that the client knows that it is connected. */
async function* lines(follower: Follower): AsyncGenerator<string> {
  yield ': here\n\n'
  for await (const page of follower.pages()) yield page.length === 0 ? ': here\n\n' : page.map(textOf).join('')
}

/** JSON has no line breaks of its own. */
function textOf(event: Event): string {
  return `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`
}
