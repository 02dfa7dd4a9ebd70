import { z } from 'zod'

/** Answer of `GET /health`, which needs no key and asks nobody: the process lives. */
export const healthSchema = z.object({ status: z.literal('ok'), version: z.string() }).meta({ id: 'Health' })
/** `version` is the control plane's own. */
export type Health = z.infer<typeof healthSchema>

const checkSchema = z.object({
  ok: z.boolean(),
  reason: z.string().optional().describe('Why not, a sentence for people.'),
  details: z.record(z.string(), z.unknown()).optional(),
})

/** Answer of `GET /ready`: 200 when a create will work, else 503 with what the platform waits for. */
export const readySchema = z
  .object({
    ready: z.boolean().describe('A create will work.'),
    checks: z.object({ database: checkSchema, host: checkSchema, template: checkSchema }),
  })
  .meta({ id: 'Ready' })
/** Each check by itself, so that an operator sees which one holds the rest up. */
export type Ready = z.infer<typeof readySchema>
