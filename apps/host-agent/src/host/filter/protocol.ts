import { z } from 'zod'

/** One line of JSON, with room for a policy of 512 names. */
export const MAXIMUM_MESSAGE_BYTES = 2 ** 20

const policy = z.object({
  internet: z.boolean(),
  allow: z.array(z.string()).readonly(),
  deny: z.array(z.string()).readonly(),
  learn: z.boolean().optional(),
  intercept: z.boolean().optional(),
  /** Absent where the host agent does not know them since it was started again: then they stay as they are. */
  rules: z
    .array(z.object({ host: z.string(), headers: z.record(z.string(), z.string()) }))
    .readonly()
    .optional(),
  authority: z.object({ cert: z.string(), key: z.string() }).optional(),
})
const source = z.string()

/** What the host agent asks of the filter, by number. `source`: the address that a slot's connections come from. */
export const filterRequestSchema = z.object({
  id: z.int(),
  ask: z.discriminatedUnion('op', [
    /** Replaces a source's policy; connections that it forbids end. */
    z.object({ op: z.literal('set'), source, policy }),
    /** Ends what a source has, and forgets it. */
    z.object({ op: z.literal('forget'), source }),
    /** Forgets all other sources. */
    z.object({ op: z.literal('keep'), sources: z.array(source) }),
    z.object({ op: z.literal('refused'), source }),
    /** What a source that learns has used. */
    z.object({ op: z.literal('learned'), source }),
    z.object({ op: z.literal('hello') }),
    z.object({ op: z.literal('end') }),
  ]),
})
/** @see filterRequestSchema */
export type FilterRequest = z.output<typeof filterRequestSchema>
/** One request without its number. */
export type FilterAsk = FilterRequest['ask']

const refusal = z.object({
  name: z.string().optional(),
  address: z.string().optional(),
  port: z.int(),
  reason: z.enum(['denied', 'not_allowed', 'no_name', 'no_address', 'too_many']),
  rule: z.string().optional(),
  count: z.int(),
  lastAtMs: z.number(),
})

const destination = z.object({
  protocol: z.enum(['tcp', 'udp', 'icmp']),
  name: z.string().optional(),
  namedBy: z.enum(['connection', 'lookup']).optional(),
  address: z.string(),
  port: z.int(),
  count: z.int(),
})

/** What it answers, under the same number. */
export const filterAnswerSchema = z.object({
  id: z.int(),
  /** Of `hello`: which program it is, by the digest it was started with. */
  version: z.string().optional(),
  refused: z.array(refusal).optional(),
  learned: z.object({ destinations: z.array(destination), isComplete: z.boolean() }).optional(),
  error: z.string().optional(),
})
/** @see filterAnswerSchema */
export type FilterAnswer = z.output<typeof filterAnswerSchema>
