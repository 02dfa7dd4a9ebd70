import { z } from 'zod'
import { type StatsRange, statsRanges } from '../stats-ranges.js'
import { requestBody, timestampSchema } from './common.js'
import { teamIdSchema } from './teams.js'

const statsRangeNames = Object.keys(statsRanges) as StatsRange[] // of a table that is written beside this folder

/** A day in UTC, in years that databases and calendars agree on. */
const dateSchema = z.iso
  .date('must be a date, such as 2026-11-30')
  .refine((date) => date >= '1970-01-01' && date <= '2999-12-31', 'must be in the years from 1970 to 2999')

/** Query of `GET /v1/capsules/stats`. */
export const statsQuerySchema = z.object({ range: z.enum(statsRangeNames).default('1h') })

const memoryCounts = 'Memory of paused capsules counts half.'

/** Answer of `GET /v1/capsules/stats`. */
export const statsSchema = z
  .object({
    range: z.enum(statsRangeNames),
    current: z.object({
      running_count: z.int(),
      vcpus_reserved: z.int(),
      memory_mb_reserved: z.int().describe(memoryCounts),
    }),
    peaks: z
      .object({ running_count: z.int(), vcpus: z.int(), memory_mb: z.int().describe(memoryCounts) })
      .describe('The highest of the last 30 days, each by itself.'),
    series: z
      .object({
        labels: z.array(timestampSchema).describe('When each step begins, oldest first.'),
        running: z.array(z.int()),
        vcpus: z.array(z.int()),
        memory_mb: z.array(z.int()).describe(memoryCounts),
      })
      .describe('The highest in each step: 3 s of 5m, 30 s of 1h, 3 min of 6h, 12 min of 24h, 6 h of 30d.'),
  })
  .meta({ id: 'CapsuleStats' })
/** How many capsules run, and what they hold. */
export type CapsuleStats = z.infer<typeof statsSchema>

/** What points of usage are of. */
export const usagePeriods = ['day', 'month'] as const
/** What points of usage are of. */
export type UsagePeriod = (typeof usagePeriods)[number]
/** Days that usage may be asked for at once, by days and by months. */
export const usageSpanDays = { day: 92, month: 1_096 } as const satisfies Record<UsagePeriod, number>

/** Query of `GET /v1/capsules/usage`. */
export const usageQuerySchema = z.object({
  from: dateSchema.optional().describe('First day, in UTC. @default 29 days before `to`'),
  to: dateSchema.optional().describe('Last day, included. @default today'),
  period: z
    .enum(usagePeriods)
    .default('day')
    .describe('`month`: one point for each month; `from` and `to` are then those of whole months.'),
  format: z.enum(['json', 'csv']).default('json'),
})

/** What was used in some time. */
export const usageSumsSchema = z.object({
  cpu_minutes: z.number().describe('Minutes of vCPUs that capsules held.'),
  ram_mb_minutes: z.number().describe(`MiB of memory, times minutes. ${memoryCounts}`),
  vcpu_seconds: z.number().describe('Seconds of vCPUs that capsules held.'),
  memory_gib_seconds: z
    .number()
    .describe('GiB of memory that capsules held while awake, times seconds; none while paused.'),
  disk_gib_seconds: z.number().describe('GiB of disk that capsules may fill, times seconds, also while paused.'),
  net_rx_bytes: z.int().describe('What capsules received by their network cards.'),
  net_tx_bytes: z.int().describe('What they sent.'),
})
/** What was used in some time. */
export type UsageSums = z.infer<typeof usageSumsSchema>

/** Answer of `GET /v1/capsules/usage`. */
export const usageSchema = z
  .object({
    from: z.string(),
    to: z.string(),
    points: z
      .array(usageSumsSchema.extend({ date: z.string().describe('The day, or the first one of the month.') }))
      .describe('Oldest first; days on which nothing was used are absent. Today is until now.'),
    total: usageSumsSchema,
  })
  .meta({ id: 'CapsuleUsage' })
/** What a team's capsules used, day by day or month by month. */
export type CapsuleUsage = z.infer<typeof usageSchema>

/** Answer of `GET /v1/admin/usage`. */
export const anyUsageSchema = z
  .object({
    from: z.string(),
    to: z.string(),
    teams: z
      .array(usageSumsSchema.extend({ team_id: z.string(), team_name: z.string().optional() }))
      .describe('Those that used anything, the most vCPU time first.'),
    total: usageSumsSchema,
  })
  .meta({ id: 'AnyUsage' })
/** What each team used. */
export type AnyUsage = z.infer<typeof anyUsageSchema>

/** Query of the checks of usage. */
export const verifyUsageQuerySchema = usageQuerySchema.pick({ from: true, to: true })
/** As the server reads it. */
export type VerifyUsageQuery = z.output<typeof verifyUsageQuerySchema>

const exactSchema = z.object({
  vcpu_seconds: z.string(),
  memory_mib_seconds: z.string(),
  paused_mib_seconds: z.string(),
  disk_mib_seconds: z.string(),
  net_rx_bytes: z.string(),
  net_tx_bytes: z.string(),
})

/** Answer of `GET /v1/capsules/usage/verify`. */
export const usageCheckSchema = z
  .object({
    from: z.string().optional().describe('The first day that was checked; absent when there was none.'),
    to: z.string().optional().describe('The last one.'),
    days: z.int().describe('How many were checked: those that have passed and of which the ledger is kept.'),
    ok: z.boolean().describe('Nothing differs.'),
    differences: z
      .array(
        z.object({
          period: z.enum(usagePeriods),
          date: z.string(),
          team_id: z.string(),
          template: z.string(),
          rolled_up: exactSchema.optional().describe('Absent where nothing was rolled up.'),
          expected: exactSchema.optional().describe('By the ledger, or of a month by its days.'),
        }),
      )
      .describe('Sums that are not what they are made of; at most 1,000.'),
    strays: z
      .array(z.string())
      .describe('Capsules whose newest entry in the ledger is not what they are; at most 1,000.'),
  })
  .meta({ id: 'UsageCheck' })
/** Whether sums are what the ledger says. */
export type UsageCheck = z.infer<typeof usageCheckSchema>

/** Query of `GET /v1/admin/usage/verify`. */
export const verifyAnyUsageQuerySchema = verifyUsageQuerySchema.extend({
  team_id: teamIdSchema.optional().describe('Only of this one.'),
})

/** Body of `POST /v1/admin/usage/recompute`. */
export const recomputeUsageSchema = requestBody({ from: dateSchema, to: dateSchema })

/** Answer of `POST /v1/admin/usage/recompute`. */
export const recomputedUsageSchema = z
  .object({ from: z.string(), to: z.string(), days: z.int().describe('How many were rolled up anew.') })
  .meta({ id: 'RecomputedUsage' })
/** Which days were rolled up anew. */
export type RecomputedUsage = z.infer<typeof recomputedUsageSchema>

/** Query of `GET /v1/admin/usage`. */
export const anyUsageQuerySchema = usageQuerySchema.omit({ period: true })
