import { AppError, secretIds } from '@wrenn/base'
import { MAX_SECRET_LENGTH, requestBody, text } from '@wrenn/protocol'
import { z } from 'zod'
import type { SecretInfo } from '../../domain/secrets/index.js'
import { actorOf, principalOf } from '../../http/auth.js'
import type { App, Services } from '../../http/context.js'
import { hidden, tellNext } from '../request.js'

const PAGE = 100
const MAX_ENTRIES = 32
const MAX_KEY_BYTES = 128
const MAX_VALUE_BYTES = 1_024
const MAX_METADATA_BYTES = 8_192
/** Begins ids on this wire: no name may. */
const ID_PREFIX = 'sec_'

const bytes = (value: string): number => Buffer.byteLength(value)

/** What a header can say of it in a rule: it is written there by its name. */
const nameSchema = z
  .string()
  .regex(
    /^(?=.{1,128}$)[!-z|~]([ -z|~]*[!-z|~])?$/,
    'must be 1 to 128 visible ASCII characters without { and }, with no space at either end',
  )
  .transform((name) => name.toLowerCase())
  .refine(
    (name) => !name.startsWith(ID_PREFIX) && !secretIds.is(name),
    `must not be an id: no name begins with ${ID_PREFIX}`,
  )

/** It goes into headers. */
const valueSchema = z
  .string()
  .regex(
    new RegExp(`^(?=.{1,${MAX_SECRET_LENGTH}}$)[!-~]([ -~]*[!-~])?$`),
    `must be 1 to ${MAX_SECRET_LENGTH} visible ASCII characters, with no space at either end`,
  )

const metadataSchema = z
  .record(text(MAX_KEY_BYTES), text(MAX_VALUE_BYTES))
  .refine((all) => Object.keys(all).length <= MAX_ENTRIES, `must have at most ${MAX_ENTRIES} entries`)
  .refine(
    (all) =>
      Object.entries(all).every(([key, value]) => bytes(key) <= MAX_KEY_BYTES && bytes(value) <= MAX_VALUE_BYTES),
    `must have keys of at most ${MAX_KEY_BYTES} bytes and values of at most ${MAX_VALUE_BYTES}`,
  )
  .refine(
    (all) =>
      Object.entries(all).reduce((sum, [key, value]) => sum + bytes(key) + bytes(value), 0) <= MAX_METADATA_BYTES,
    `must have at most ${MAX_METADATA_BYTES} bytes in all`,
  )

const params = z.object({ secret: text(200, 1) })
const newSecret = requestBody({ name: nameSchema, value: valueSchema, metadata: metadataSchema.optional() })
const nextValue = requestBody({ value: valueSchema, metadata: metadataSchema.optional() })
const pageQuery = z.object({
  limit: z.coerce.number().int().min(1).max(PAGE).default(PAGE),
  nextToken: text(400, 1).optional(),
})

/** Secrets of the team, which rules of `network` refer to. No answer has a value. */
export function secretRoutes(app: App, { secrets }: Services): void {
  app.get(
    '/secrets',
    { config: { permission: 'capsules.read' }, schema: { ...hidden, querystring: pageQuery } },
    async (request, reply) => {
      const { limit, nextToken } = request.query
      const afterName = nextToken === undefined ? undefined : nameOf(nextToken)
      const { items, nextName } = await secrets.list(principalOf(request).teamId, { afterName, limit })
      tellNext(reply, nextName && Buffer.from(nextName).toString('base64url'))
      return items.map(toSecret)
    },
  )

  app.post(
    '/secrets',
    { config: { permission: 'capsules.write' }, schema: { ...hidden, body: newSecret } },
    async (request, reply) => {
      const { name, value, metadata = {} } = request.body
      const made = await secrets.create(principalOf(request).teamId, { name, value, metadata }, actorOf(request))
      return await reply.status(201).send(toSecret(made))
    },
  )

  app.get(
    '/secrets/:secret',
    { config: { permission: 'capsules.read' }, schema: { ...hidden, params } },
    async (request) => toSecret(await secrets.get(principalOf(request).teamId, ours(request.params.secret))),
  )

  app.post(
    '/secrets/:secret',
    { config: { permission: 'capsules.write' }, schema: { ...hidden, params, body: nextValue } },
    async (request) => {
      const { value, metadata } = request.body
      const { teamId } = principalOf(request)
      return toSecret(await secrets.replace(teamId, ours(request.params.secret), { value, metadata }, actorOf(request)))
    },
  )

  app.delete(
    '/secrets/:secret',
    { config: { permission: 'capsules.write' }, schema: { ...hidden, params } },
    async (request, reply) => {
      await secrets.remove(principalOf(request).teamId, ours(request.params.secret), actorOf(request))
      return await reply.status(204).send()
    },
  )
}

function toSecret({ id, name, version, metadata, created_at: createdAt, updated_at: updatedAt }: SecretInfo) {
  return {
    secretID: id.replace('-', '_'),
    name,
    currentVersion: version,
    metadata,
    createdAt: createdAt.toISOString(),
    updatedAt: updatedAt.toISOString(),
  }
}

/** An id as we have it; a name as it is. */
function ours(idOrName: string): string {
  return idOrName.startsWith(ID_PREFIX) ? idOrName.replace('_', '-') : idOrName
}

/** @throws AppError `invalid_request` */
function nameOf(token: string): string {
  const { success, data } = nameSchema.safeParse(Buffer.from(token, 'base64url').toString())
  if (success) return data
  throw new AppError('invalid_request', 'nextToken must be the x-next-token of a page.')
}
