import { z } from 'zod'
import { parseImageReference } from '../image-reference.js'
import { requestBody, text, timestampSchema } from './common.js'

/** As references of images have it; also a path segment. */
export const registrySchema = text(255, 1)
  .refine(
    (registry) => parseImageReference(`${registry}/a/b`)?.registry === registry,
    'must be a registry as images name it, in small letters: host or host:port, without a scheme or a path',
  )
  .describe('`host` or `host:port`, as images name it; Docker Hub is `docker.io`.')

/** Body of `PUT /v1/registries/{registry}`. */
export const saveRegistryLoginSchema = requestBody({
  username: text(255, 1).regex(/^[^:]*$/, 'must not contain a colon'),
  password: text(16_384, 1).describe('A password or a token. Encrypted, and in no answer.'),
}).meta({ id: 'SaveRegistryLogin' })
/** As the server reads it. */
export type SaveRegistryLoginInput = z.output<typeof saveRegistryLoginSchema>

/** A login of the team at a registry. */
export const registryLoginSchema = z
  .object({ registry: z.string(), username: z.string(), created_at: timestampSchema, updated_at: timestampSchema })
  .meta({ id: 'RegistryLogin' })
/** On the wire. */
export type RegistryLogin = z.infer<typeof registryLoginSchema>
