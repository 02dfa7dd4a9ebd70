import { AppError, queryText } from '@wrenn/base'
import { text } from '@wrenn/protocol'
import { z } from 'zod'
import { sandboxStates } from './sandbox.js'

const PAGE = 100

const commaSeparated = z
  .union([z.string(), z.array(z.string())])
  .transform((value) => [value].flat().flatMap((part) => part.split(',')))

const METADATA_LENGTH = 16_384
const plain = text(METADATA_LENGTH)

/** Which sandboxes; filters that are given must all match. */
export const sandboxFilterSchema = z.object({ metadata: text(METADATA_LENGTH).optional() })

/** Query of `GET /v2/sandboxes`. */
export const listSandboxesSchema = sandboxFilterSchema.extend({
  state: commaSeparated.pipe(z.array(z.enum(sandboxStates))).optional(),
  template: text(200, 1).optional(),
  startedAfter: z.iso.datetime({ offset: true }).optional(),
  order: z.enum(['asc', 'desc']).default('desc'),
  limit: z.coerce.number().int().min(1).max(PAGE).default(PAGE),
  nextToken: text(256, 1).optional(),
})

/**
 * The pairs of a metadata filter: the query's value is a query itself, whose names and values are encoded once more.
 * @throws AppError `invalid_request` for what is not
 */
export function metadataFilter(value: string | undefined): Record<string, string> {
  return Object.fromEntries([...queryText(value ?? '')].map(([name, text]) => [decoded(name), decoded(text)]))
}

/** It may be anything only now: what was checked before was still encoded. */
function decoded(value: string): string {
  try {
    return plain.parse(decodeURIComponent(value))
  } catch {
    throw new AppError('invalid_request', 'metadata must be a query whose names and values are URL-encoded text.')
  }
}
