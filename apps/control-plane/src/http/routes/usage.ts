import {
  anyUsageQuerySchema,
  anyUsageSchema,
  recomputedUsageSchema,
  recomputeUsageSchema,
  statsQuerySchema,
  statsSchema,
  usageCheckSchema,
  usageQuerySchema,
  usageSchema,
  verifyAnyUsageQuerySchema,
  verifyUsageQuerySchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import { actorOf, principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { CSV_TYPE, csvHeaders, toCsv } from '../csv.js'
import { errors } from '../schemas.js'

const sums = [
  'cpu_minutes',
  'ram_mb_minutes',
  'vcpu_seconds',
  'memory_gib_seconds',
  'disk_gib_seconds',
  'net_rx_bytes',
  'net_tx_bytes',
] as const
const csv = z.string().describe('The table, with `format=csv`.')
const csvNote =
  'With `format=csv` the answer is a table of comma-separated values (RFC 4180) with a header, one point a line.'

/** What capsules held of the platform, and for how long. */
export function usageRoutes(app: App, services: Services): void {
  teamRoutes(app, services)
  adminRoutes(app, services)
}

function teamRoutes(app: App, { usage }: Services): void {
  app.get(
    '/v1/capsules/stats',
    {
      config: { permission: 'capsules.read' },
      schema: {
        tags: ['usage'],
        summary: "How many of the team's capsules run, how many did, and what they hold.",
        querystring: statsQuerySchema,
        response: { 200: statsSchema, ...errors },
      },
    },
    (request) => usage.stats(principalOf(request).teamId, request.query.range),
  )

  app.get(
    '/v1/capsules/usage',
    {
      config: { permission: 'capsules.read' },
      schema: {
        tags: ['usage'],
        summary: "What the team's capsules used, day by day or month by month, in UTC.",
        description: `At most 92 days, or 1,096 for points of months, at once. ${csvNote}`,
        produces: ['application/json', CSV_TYPE],
        querystring: usageQuerySchema,
        response: { 200: z.union([usageSchema, csv]), ...errors },
      },
    },
    async (request, reply) => {
      const { format, period, ...span } = request.query
      const answer = await usage.of(principalOf(request).teamId, span, period)
      if (format === 'json') return answer
      const name = `usage-${answer.from}-${answer.to}.csv`
      return await reply.headers(csvHeaders(name)).send(toCsv(['date', ...sums], answer.points))
    },
  )

  app.get(
    '/v1/capsules/usage/verify',
    {
      config: { permission: 'capsules.read' },
      schema: {
        tags: ['usage'],
        summary: "Whether the team's usage is what the ledger of its capsules' changes says.",
        description:
          'Days that have passed and of which the ledger is kept are made anew of it and compared to the last digit: the last thirty, or those between `from` and `to`, at most 92.',
        querystring: verifyUsageQuerySchema,
        response: { 200: usageCheckSchema, ...errors },
      },
    },
    (request) => usage.verify(request.query, principalOf(request).teamId),
  )
}

function adminRoutes(app: App, { usage }: Services): void {
  app.get(
    '/v1/admin/usage',
    {
      config: { permission: 'teams.read' },
      schema: {
        tags: ['usage'],
        summary: 'What each team used, teams that were deleted included.',
        description: `At most 92 days at once. ${csvNote}`,
        produces: ['application/json', CSV_TYPE],
        querystring: anyUsageQuerySchema,
        response: { 200: z.union([anyUsageSchema, csv]), ...errors },
      },
    },
    async (request, reply) => {
      const { format, ...span } = request.query
      const answer = await usage.byTeam(span)
      if (format === 'json') return answer
      const name = `usage-of-teams-${answer.from}-${answer.to}.csv`
      return await reply.headers(csvHeaders(name)).send(toCsv(['team_id', 'team_name', ...sums], answer.teams))
    },
  )

  app.get(
    '/v1/admin/usage/verify',
    {
      config: { permission: 'teams.read' },
      schema: {
        tags: ['usage'],
        summary: 'Whether the usage of all teams, or of one, is what the ledger says.',
        querystring: verifyAnyUsageQuerySchema,
        response: { 200: usageCheckSchema, ...errors },
      },
    },
    (request) => {
      const { team_id: teamId, ...span } = request.query
      return usage.verify(span, teamId)
    },
  )

  app.post(
    '/v1/admin/usage/recompute',
    {
      config: { permission: 'teams.write' },
      schema: {
        tags: ['usage'],
        summary: 'Make the sums of days that have passed anew of the ledger, as far as it is kept.',
        body: recomputeUsageSchema,
        response: { 200: recomputedUsageSchema, ...errors },
      },
    },
    (request) => usage.recompute(request.body, actorOf(request)),
  )
}
