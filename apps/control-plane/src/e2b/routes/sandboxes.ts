import { z } from 'zod'
import { principalOf } from '../../http/auth.js'
import type { App, Services } from '../../http/context.js'
import { domainFor } from '../../http/domain-for.js'
import { listSandboxesSchema, metadataFilter, sandboxFilterSchema } from '../list-query.js'
import { toMetric, toPastMetric } from '../metrics.js'
import { hidden, idOf, liveOf, optionsOf, sandboxParams, tellNext } from '../request.js'
import { needThere, sandboxStates, statesShownAs, toListedSandbox, toSandboxInfo } from '../sandbox.js'
import { templateNameOf } from '../template-id.js'

const METRICS_TIMEOUT_MS = 10_000
/** What a request without `start` means. */
const RECENT_SEC = 600
/** The older list has no pages. */
const OLD_LIST_LIMIT = 1_000
/** Of the older of two units for the same time. */
const MILLISECONDS_FROM = 10 ** 11

const seconds = z.coerce
  .number()
  .int()
  .min(0)
  .transform((time) => (time < MILLISECONDS_FROM ? time : Math.floor(time / 1000)))

/** List, look at, measure and kill sandboxes. */
export function sandboxRoutes(app: App, { capsules, host, history, proxyDomain }: Services): void {
  app.get(
    '/sandboxes',
    { config: { permission: 'capsules.read' }, schema: { ...hidden, querystring: sandboxFilterSchema } },
    async (request) => {
      const { rows } = await capsules.page(principalOf(request).teamId, {
        states: statesShownAs(['running']),
        labels: metadataFilter(request.query.metadata),
        cursor: undefined,
        limit: OLD_LIST_LIMIT,
      })
      return rows.map(toListedSandbox)
    },
  )

  app.get(
    '/v2/sandboxes',
    { config: { permission: 'capsules.read' }, schema: { ...hidden, querystring: listSandboxesSchema } },
    async (request, reply) => {
      const { state, template, startedAfter, order, limit, nextToken, metadata } = request.query
      const { rows, nextCursor } = await capsules.page(principalOf(request).teamId, {
        states: statesShownAs(state ?? sandboxStates),
        labels: metadataFilter(metadata),
        templates: template === undefined ? undefined : await allNames(templateNameOf(template)),
        startedAfter: startedAfter === undefined ? undefined : new Date(startedAfter),
        order,
        cursor: nextToken,
        limit,
      })
      tellNext(reply, nextCursor)
      return rows.map(toListedSandbox)
    },
  )

  /** A capsule keeps the name that it was created from; a template has several. */
  async function allNames(name: string): Promise<readonly string[]> {
    const template = await host.findTemplate(name)
    return template === undefined ? [name] : [template.name, ...template.aliases]
  }

  app.get(
    '/sandboxes/:id',
    { config: { permission: 'capsules.read' }, schema: { ...hidden, params: sandboxParams } },
    async (request) => toSandboxInfo(await liveOf(request, capsules), domainFor(proxyDomain, request.headers.host)),
  )

  app.delete(
    '/sandboxes/:id',
    { config: { permission: 'capsules.write' }, schema: { ...hidden, params: sandboxParams } },
    async (request, reply) => {
      const { id, team_id: teamId } = needThere(await capsules.get(principalOf(request).teamId, idOf(request)))
      const { waitMs, actor } = optionsOf(request)
      await capsules.destroy(teamId, id, { waitMs, actor })
      return await reply.status(204).send()
    },
  )

  app.get(
    '/sandboxes/:id/metrics',
    {
      config: { permission: 'capsules.read' },
      schema: {
        ...hidden,
        params: sandboxParams,
        querystring: z.object({ start: seconds.optional(), end: seconds.optional() }),
      },
    },
    async (request) => {
      const row = await liveOf(request, capsules)
      const { start, end } = request.query
      const nowSec = Math.floor(Date.now() / 1000)
      // The end that is asked for is included.
      const toSec = end === undefined ? Number.POSITIVE_INFINITY : end + 1
      const { points } = await history.read(row, { fromSec: start ?? nowSec - RECENT_SEC, toSec })
      if (points.length > 0) return points.map((point) => toPastMetric(row, point))
      // Of one that has just begun to run there is the point of now.
      if (row.state !== 'running') return []
      const ask = { capsuleId: row.id }
      const now = toMetric(await host.call((client) => client.getMetrics(ask, { timeoutMs: METRICS_TIMEOUT_MS })))
      return [now].filter(({ timestampUnix }) => timestampUnix >= (start ?? 0) && timestampUnix < toSec)
    },
  )
}
