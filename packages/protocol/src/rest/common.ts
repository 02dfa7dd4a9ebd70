import { z } from 'zod'

/** Half of a character of UTF-16, which UTF-8 and a database cannot hold. */
const LONE_SURROGATE = /\p{Surrogate}/u

/** Text that can be stored and passed to a process: no NUL byte, whole characters, bounded length. */
export function text(maxLength: number, minLength = 0) {
  return z
    .string()
    .min(minLength)
    .max(maxLength)
    .refine((value) => !value.includes('\0'), { message: 'must not contain a NUL byte' })
    .refine((value) => !LONE_SURROGATE.test(value), { message: 'must be valid Unicode' })
}

export const capsuleIdSchema = z
  .string()
  .regex(/^cl-[0-9a-z]{25}$/, 'must be a capsule id: cl- and 25 characters 0-9a-z')
  .describe('Capsule id: `cl-` and 25 base-36 characters.')

/** An RFC 3339 time in UTC. */
export const timestampSchema = z.string().describe('RFC 3339 time in UTC, ending in Z.')

/** Environment variable names cannot hold `=`; values are anything without a NUL byte. */
export const envsSchema = z
  .record(text(256, 1).regex(/^[^=]+$/, 'must not contain ='), text(128 * 1024))
  .describe('Environment variables, added to the base environment.')

export const labelsSchema = z
  .record(text(63, 1), text(256))
  .describe('Free key-value pairs of yours; list can filter by them.')

export const pathSchema = text(4096, 1).describe(
  'Path inside the capsule; a relative one starts at the home of the user.',
)

export const userSchema = text(64, 1).describe('User inside the capsule.')

export const errorBodySchema = z
  .object({
    error: z.object({
      code: z.string().describe('Stable code, see docs/errors.md.'),
      message: z.string().describe('A sentence for people.'),
      hint: z.string().optional().describe('The next step.'),
      details: z.record(z.string(), z.unknown()).optional(),
      requestId: z.string().optional(),
    }),
  })
  .meta({ id: 'Error' })
export type ErrorBody = z.infer<typeof errorBodySchema>
