import { z } from 'zod'
import { scopes } from '../permissions.js'
import { requestBody, text, timestampSchema } from './common.js'

/** `wrn` for Wrenn's own clients; `e2b` for those made for E2B, which refuse keys of another form. */
export const apiKeyForms = ['wrn', 'e2b'] as const
export type ApiKeyForm = (typeof apiKeyForms)[number]

const TEN_YEARS_SEC = 10 * 365 * 24 * 3600

/** Also a path segment; no other text reaches the database. */
export const apiKeyIdSchema = z
  .string()
  .regex(/^[a-z0-9-]{1,64}$/, 'must be the id of a key: key- and 25 characters 0-9a-z')

const scopeSchema = z
  .enum(scopes)
  .describe(
    '`read`: see capsules and templates. `capsules`: also make, move and use them. `templates`: also make and delete snapshots. `admin`: manage keys and read the audit trail. `platform`: manage accounts of people, whatever their team.',
  )

/** Body of `POST /v1/api-keys`; may be absent. */
export const createApiKeySchema = requestBody({
  name: text(128, 1).default('Unnamed API Key').describe('For people; need not be unique.'),
  scopes: z
    .array(scopeSchema)
    .min(1)
    .max(scopes.length)
    .optional()
    .describe('Not more than those of the key that asks. Default: the same, but `platform`.'),
  expires_in_sec: z
    .int()
    .min(60)
    .max(TEN_YEARS_SEC)
    .optional()
    .describe('Not later than the key that asks. Default: never, or with the key that asks.'),
  format: z.enum(apiKeyForms).default('wrn').describe('`e2b`: the form that clients made for E2B take.'),
}).meta({ id: 'CreateApiKey' })
/** As the server reads it. */
export type CreateApiKeyInput = z.output<typeof createApiKeySchema>

/** Query of `GET /v1/api-keys`. */
export const listApiKeysQuerySchema = z.object({
  limit: z.coerce.number().int().min(1).max(1000).default(1000),
  cursor: text(256, 1).optional().describe('The `x-next-token` header of the page before.'),
})
/** As the server reads it. */
export type ListApiKeysQuery = z.output<typeof listApiKeysQuerySchema>

/** A key as it is known afterwards: what it is good for, not itself. */
export const apiKeySchema = z
  .object({
    id: apiKeyIdSchema,
    team_id: z.string(),
    name: z.string(),
    key_prefix: z.string().describe('Its first characters.'),
    scopes: z.array(z.string()),
    created_by: z.string().optional().describe('Id of the key that made it.'),
    created_at: timestampSchema,
    expires_at: timestampSchema.optional(),
    last_used: timestampSchema.optional().describe('Some seconds late.'),
  })
  .meta({ id: 'ApiKey' })
/** A key on the wire. */
export type ApiKey = z.infer<typeof apiKeySchema>

/** Answer to the making of a key, the only one that has the key. */
export const newApiKeySchema = apiKeySchema
  .extend({ key: z.string().describe('The key itself. It is not stored and cannot be shown again.') })
  .meta({ id: 'NewApiKey' })
/** A key on the wire, with what authenticates. */
export type NewApiKey = z.infer<typeof newApiKeySchema>
