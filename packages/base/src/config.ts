import type { z } from 'zod'
import { AppError } from './errors.js'

/**
 * Reads configuration from environment-like pairs through a zod schema: empty means unset, every problem is reported
 * together, the result is frozen.
 * @throws AppError `invalid_config`
 */
export function loadConfig<Schema extends z.ZodType>(
  schema: Schema,
  env: Readonly<Record<string, string | undefined>>,
): Readonly<z.infer<Schema>> {
  const set = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ''))
  const parsed = schema.safeParse(set)
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'environment'}: ${issue.message}`)
    throw new AppError('invalid_config', `The configuration is not usable: ${problems.join('; ')}.`)
  }
  return Object.freeze(parsed.data)
}
