import { z } from 'zod'

export const healthSchema = z.object({ status: z.literal('ok'), version: z.string() }).meta({ id: 'Health' })
export type Health = z.infer<typeof healthSchema>

const checkSchema = z.object({
  ok: z.boolean(),
  reason: z.string().optional().describe('Why not, a sentence for people.'),
  details: z.record(z.string(), z.unknown()).optional(),
})

export const readySchema = z
  .object({
    ready: z.boolean().describe('A create will work.'),
    checks: z.object({ database: checkSchema, host: checkSchema, template: checkSchema }),
  })
  .meta({ id: 'Ready' })
export type Ready = z.infer<typeof readySchema>
