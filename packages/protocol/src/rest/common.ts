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

/**
 * The wire form of ids (128 random bits in base 36); as a path segment of a route it also decides that no other text reaches
 * the database.
 */
export const capsuleIdSchema = z
  .string()
  .regex(/^cl-[0-9a-z]{25}$/, 'must be a capsule id: cl- and 25 characters 0-9a-z')
  .describe('Capsule id: `cl-` and 25 base-36 characters.')

/** An RFC 3339 time in UTC. */
export const timestampSchema = z.string().describe('RFC 3339 time in UTC, ending in Z.')

/**
 * The body of a request. A field that it does not have is refused by name: ignored, a misspelled limit or policy would be none
 * at all. Existing clients send no field beyond those of their routes.
 */
export function requestBody<Shape extends z.ZodRawShape>(shape: Shape) {
  const known = Object.keys(shape)
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'unrecognized_keys' ? unknownField(issue.keys[0] ?? '', known) : undefined),
  })
}

function unknownField(field: string, known: readonly string[]): string {
  const near = known.find((name) => isNear(field.toLowerCase(), name))
  const instead = near === undefined ? `the fields are ${known.join(', ')}` : `did you mean ${near}?`
  return `there is no such field; ${instead}`
}

/** One is the beginning of the other, or they differ in one place or two neighbours' order, or only in dashes and such. */
function isNear(one: string, other: string): boolean {
  const [a, b] = [one, other].map((text) => text.replaceAll(/[^a-z0-9]/g, ''))
  if (a === undefined || b === undefined || a.length < 3 || b.length < 3) return false
  if (a.startsWith(b) || b.startsWith(a)) return true
  let start = 0
  while (start < a.length && a[start] === b[start]) start += 1
  let end = 0
  while (end < Math.min(a.length, b.length) - start && a.at(-1 - end) === b.at(-1 - end)) end += 1
  return Math.max(a.length, b.length) - start - end <= 2
}

/** What Linux passes in one variable: 32 pages for `NAME=value` and a NUL byte (execve(2)). */
const MAX_VARIABLE_BYTES = 128 * 1024 - 1
/** What it passes in all arguments and variables together, with a stack limit of 8 MiB. */
const MAX_ENVIRONMENT_BYTES = 2 * 1024 * 1024
/** Every command of a capsule gets it, and the capsule's rows and saved states carry it; most of what fits stays a command's own. */
export const MAX_CAPSULE_ENVIRONMENT_BYTES = 256 * 1024

/** Names cannot hold `=`; values are anything without a NUL byte. Both are bounded by what a program can be given. */
function environment(maxBytes: number) {
  return z
    .record(text(256, 1).regex(/^[^=]+$/, 'must not contain ='), text(MAX_VARIABLE_BYTES))
    .check(({ value: envs, issues }) => {
      const sizes = Object.entries(envs).map(([name, value]) => [name, utf8Bytes(`${name}=${value}`)] as const)
      for (const [name, size] of sizes) {
        if (size <= MAX_VARIABLE_BYTES) continue
        const message = `has ${size} bytes with its name, at most ${MAX_VARIABLE_BYTES} can be passed; use a file for more`
        issues.push({ code: 'custom', message, path: [name], input: envs })
      }
      const total = environmentBytes(envs)
      if (total <= maxBytes) return
      const message = `the environment has ${total} bytes, at most ${maxBytes} can be passed; use a file for more`
      issues.push({ code: 'custom', message, input: envs })
    })
}

/** What a program is passed for these variables: each as `name=value` in UTF-8 with a NUL byte after it. */
export function environmentBytes(envs: Readonly<Record<string, string>>): number {
  return Object.entries(envs).reduce((sum, [name, value]) => sum + utf8Bytes(`${name}=${value}`) + 1, 0)
}

function utf8Bytes(value: string): number {
  return new TextEncoder().encode(value).length
}

/**
 * Environment of one command. Linux bounds one variable to 32 pages and all that execve(2) passes to a quarter of the stack
 * limit.
 */
export const envsSchema = environment(MAX_ENVIRONMENT_BYTES).describe(
  'Environment variables, added to the base environment; 128 KiB each, 2 MiB with all arguments.',
)

/**
 * Environment of a capsule, which every command gets on top of its own.
 */
export const capsuleEnvsSchema = environment(MAX_CAPSULE_ENVIRONMENT_BYTES).describe(
  'Environment variables of every command in the capsule; 128 KiB each, 256 KiB together.',
)

/** Keys of 1 to 63 characters, values up to 256; how many there may be is the server's configuration. */
export const labelsSchema = z
  .record(text(63, 1), text(256))
  .describe('Free key-value pairs of yours; list can filter by them.')

/** Up to PATH_MAX of Linux (4096). Names that are not UTF-8 are written with the escapes of `pathText` in `@wrenn/base`. */
export const pathSchema = text(4096, 1).describe(
  'Path inside the capsule; a relative one starts at the home of the user.',
)

/** A name of the guest's `/etc/passwd`, or numbers as container images have them: `1000`, `1000:1000`. */
export const userSchema = text(64, 1).describe('User inside the capsule.')

/**
 * The body of every answer from 400 on. `details` never carries secrets; `requestId` is what an operator finds in the logs.
 */
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
/** An error on the wire; the SDK makes a class of its `code`. */
export type ErrorBody = z.infer<typeof errorBodySchema>
