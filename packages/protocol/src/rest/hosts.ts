import { z } from 'zod'
import { hostAddressPattern, parseHostAddress } from '../host-address.js'
import { requestBody, text, timestampSchema } from './common.js'

/** Wire form of a host's id, also as a path segment. */
export const hostIdSchema = z
  .string()
  .regex(/^host-[0-9a-z]{25}$/, 'must be a host id: host- and 25 characters 0-9a-z')
  .describe('Host id: `host-` and 25 base-36 characters.')

/** A word by which some hosts are asked for. */
export const hostTagSchema = z
  .string()
  .regex(
    /^[a-z0-9][a-z0-9._:=-]{0,62}$/,
    'must begin with a small letter or digit and have those and . _ : = - alone, 63 characters at most',
  )

const MAX_TAGS = 32

/** Tags that a host must have, all of them. */
export const wantedHostTagsSchema = z.array(hostTagSchema).max(MAX_TAGS)

/** Body of `PUT /v1/hosts/{id}/tags`. */
export const hostTagsBodySchema = requestBody({
  tags: wantedHostTagsSchema.describe('All that it has from now on.'),
}).meta({ id: 'HostTags' })

/** Another machine that runs capsules of this platform. */
export const hostSchema = z
  .object({
    id: z.string(),
    type: z.string().describe('`regular`: for all teams.'),
    status: z
      .string()
      .describe(
        '`pending`: its token was not used yet; `online`; `unreachable`: it does not answer; `revoked`: it is trusted no more until it joins again.',
      ),
    schedulable: z.boolean().describe('Whether it gets new capsules; `false`: it is cordoned.'),
    tags: z.array(z.string()).describe('By which creates may ask for it.'),
    address: z.string().optional().describe('Where its host agent listens: `name:port`. Absent until it has joined.'),
    arch: z.string().optional(),
    cpu_cores: z.number().optional(),
    memory_mb: z.number().optional(),
    disk_gb: z.number().optional(),
    last_heartbeat_at: timestampSchema.optional().describe('When it was last heard.'),
    certificate_expires_at: timestampSchema
      .optional()
      .describe('Of the newest one; it is renewed after two thirds of its life.'),
    created_by: z.string().describe('Id of the person or key.'),
    created_at: timestampSchema,
    updated_at: timestampSchema,
  })
  .meta({ id: 'Host' })
/** On the wire. */
export type Host = z.infer<typeof hostSchema>

/** A host that may join, with what it joins by. */
export const newHostSchema = z
  .object({
    host: hostSchema,
    registration_token: z.string().describe('Good once. Shown once.'),
    registration_expires_at: timestampSchema,
  })
  .meta({ id: 'NewHost' })
/** On the wire. */
export type NewHost = z.infer<typeof newHostSchema>

const request = text(8192, 1).describe(
  'A certificate request (PKCS #10) as PEM, for a key on P-256 that stays on the host. Nothing of it but the key is read.',
)

/** Body of `POST /v1/hosts/register`. */
export const registerHostSchema = requestBody({
  token: text(256, 1),
  address: text(261, 1)
    .regex(hostAddressPattern, 'must be name:port, address:port or [IPv6]:port')
    .refine((address) => parseHostAddress(address) !== undefined, 'must have a port from 1 to 65535')
    .describe('Where control planes reach its host agent.'),
  csr: request,
  arch: text(32, 1).optional(),
  cpu_cores: z.number().int().min(1).max(1_000_000).optional(),
  memory_mb: z
    .number()
    .int()
    .min(1)
    .max(2 ** 40)
    .optional(),
  disk_gb: z
    .number()
    .int()
    .min(0)
    .max(2 ** 40)
    .optional(),
}).meta({ id: 'RegisterHost' })
/** As the server reads it. */
export type RegisterHostInput = z.output<typeof registerHostSchema>

/** Body of `POST /v1/hosts/auth/refresh`. */
export const refreshHostSchema = requestBody({ refresh_token: text(256, 1), csr: request }).meta({ id: 'RefreshHost' })
/** As the server reads it. */
export type RefreshHostInput = z.output<typeof refreshHostSchema>

/** What a host proves with who it is, and whom it believes. */
export const hostCredentialsSchema = z
  .object({
    host: hostSchema,
    refresh_token: z.string().describe('For the next certificate; good once, for 60 days.'),
    cert_pem: z.string(),
    ca_cert_pem: z.string().describe('Certificates of all authorities that control planes may have one of.'),
  })
  .meta({ id: 'HostCredentials' })
/** On the wire. */
export type HostCredentials = z.infer<typeof hostCredentialsSchema>

/** Body of `POST /v1/hosts/{id}/drain`; may be absent. */
export const drainHostSchema = requestBody({
  concurrency: z.number().int().min(1).max(32).default(4).describe('How many capsules are on their way at once.'),
}).meta({ id: 'DrainHost' })

const drainedCapsuleSchema = z
  .object({
    capsule_id: z.string(),
    team_id: z.string(),
    state: z
      .enum(['waiting', 'moving', 'done', 'failed'])
      .describe('`done`: it is on the host no more; `failed`: it is still there, and tried again.'),
    attempts: z.number().describe('That failed.'),
    operation_id: z.string().optional().describe('Of its newest move.'),
    error: z
      .object({ code: z.string(), message: z.string() })
      .optional()
      .describe('Why it failed last; of one that is `done`, why it hibernates although it ran.'),
    updated_at: timestampSchema,
  })
  .meta({ id: 'DrainedCapsule' })

/** A host that is being emptied, or is empty. */
export const hostDrainSchema = z
  .object({
    host_id: z.string(),
    state: z.enum(['draining', 'drained']).describe('`drained`: no capsule is left.'),
    concurrency: z.number(),
    total: z.number().describe('Capsules that were on it since this began.'),
    done: z.number(),
    moving: z.number(),
    waiting: z.number(),
    failed: z.number(),
    capsules: z
      .array(drainedCapsuleSchema)
      .describe('Those that failed first, then those on their way; 1,000 at most.'),
    templates: z
      .array(z.object({ id: z.string(), team_id: z.string(), name: z.string() }))
      .describe('That are on this host alone: they stay, and are lost with it. 1,000 at most.'),
    started_at: timestampSchema,
    ended_at: timestampSchema.optional().describe('When nothing was left.'),
  })
  .meta({ id: 'HostDrain' })
/** On the wire. */
export type HostDrain = z.infer<typeof hostDrainSchema>

/** Query of `DELETE /v1/hosts/{id}`. */
export const deleteHostQuerySchema = z.object({
  force: z
    .enum(['true', 'false'])
    .default('false')
    .transform((value) => value === 'true')
    .describe('Also when it has capsules or templates: they are lost.'),
})
