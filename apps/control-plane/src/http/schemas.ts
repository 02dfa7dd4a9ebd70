import { capsuleIdSchema, errorBodySchema, processSelectorSchema } from '@wrenn/protocol'
import { z } from 'zod'

/** Path of every route about one capsule. Whose it is says the handler, with `capsule_not_found`. */
export const capsuleParams = z.object({ id: capsuleIdSchema })
/** Path of routes about one process. */
export const processParams = z.object({ id: capsuleIdSchema, selector: processSelectorSchema })

/** Every route may answer with an error of the table. */
export const errors = { '4xx': errorBodySchema, '5xx': errorBodySchema } as const

/** The body of a 204. */
export const noContent = z.void().describe('Done.')

/** A body that goes through as bytes; only for the document, streams are never validated. */
export const bytes = z.any().meta({ type: 'string', format: 'binary' }).describe('The bytes of the file.')

/** Bodies of routes whose every field is optional may be absent. */
export function optionalBody<Schema extends z.ZodType>(schema: Schema) {
  return z.preprocess((value) => value ?? {}, schema)
}

/** Of bodies with an environment: one that is too large is then refused by that name, not as a body. */
export const ENVIRONMENT_BODY_BYTES = 8 * 1024 * 1024
