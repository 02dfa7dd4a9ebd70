import { z } from 'zod'
import { capsuleStates } from '../states.js'
import { capsuleIdSchema, requestBody, text, timestampSchema } from './common.js'
import { hostIdSchema } from './hosts.js'
import { teamIdSchema } from './teams.js'

/** A capsule of any team, as admins of the platform see it: that it is there, and what it takes. */
export const anyCapsuleSchema = z
  .object({
    id: capsuleIdSchema,
    name: z.string().optional(),
    state: z.enum(capsuleStates),
    team_id: teamIdSchema,
    team_name: z.string(),
    host_id: z.string().optional(),
    template: z.string(),
    vcpus: z.int(),
    memory_mb: z.int(),
    disk_bytes: z.number().optional().describe('Bytes of the pool that only it holds; absent until measured.'),
    created_at: timestampSchema,
    last_active_at: timestampSchema.optional(),
  })
  .meta({ id: 'AnyCapsule' })
/** Of whatever team. */
export type AnyCapsule = z.infer<typeof anyCapsuleSchema>

/** Query of `GET /v1/admin/capsules`; what is given must all be so. */
export const listAnyCapsulesQuerySchema = z.object({
  state: z.enum(capsuleStates).exclude(['stopped']).optional(),
  team_id: teamIdSchema.optional(),
  cursor: text(256, 1).optional().describe('`next_cursor` of the page before.'),
  limit: z.coerce.number().int().min(1).max(1000).default(200),
})
/** As the server reads it. */
export type ListAnyCapsulesQuery = z.output<typeof listAnyCapsulesQuerySchema>

/** A page, newest first. */
export const anyCapsulePageSchema = z
  .object({ items: z.array(anyCapsuleSchema), next_cursor: z.string().optional().describe('Absent on the last page.') })
  .meta({ id: 'AnyCapsulePage' })
/** A page on the wire. */
export type AnyCapsulePage = z.infer<typeof anyCapsulePageSchema>

/** Body of `POST /v1/admin/capsules/{id}/move`; may be absent. */
export const moveCapsuleSchema = requestBody({
  host_id: hostIdSchema
    .optional()
    .describe('Where it shall go; only for one that runs. Absent: to the host that a create would go to.'),
}).meta({ id: 'MoveCapsule' })

/** A capsule on its way from one host to another, or after that. */
export const capsuleMoveSchema = z
  .object({
    id: z.string().describe('Of the operation, as the audit trail has it.'),
    capsule_id: capsuleIdSchema,
    team_id: teamIdSchema,
    state: z.enum(['running', 'succeeded', 'failed']),
    capsule_state: z
      .enum(capsuleStates)
      .describe('Of the capsule now: `pausing`, `paused` while it is stored, `hibernated`, `resuming`, `running`.'),
    from_host_id: z.string().optional().describe('The host that it leaves; absent when it was on none.'),
    to_host_id: z.string().optional().describe('The host that has a place for it; absent for one that hibernates.'),
    because: z.string().optional().describe('Why that one, a sentence.'),
    host_id: z.string().optional().describe('The host that it is on now; absent when it is on none.'),
    error: z.object({ code: z.string(), message: z.string() }).optional().describe('Why it failed.'),
    created_at: timestampSchema,
    updated_at: timestampSchema,
  })
  .meta({ id: 'CapsuleMove' })
/** On the wire. */
export type CapsuleMove = z.infer<typeof capsuleMoveSchema>

const problemSchema = z
  .object({
    severity: z.enum(['error', 'warning']).describe('`error`: something does not work. `warning`: it soon may not.'),
    part: z.enum(['host', 'database', 'mail', 'lago']),
    message: z.string().describe('A sentence.'),
    next_step: z.string().describe('What to do about it.'),
  })
  .meta({ id: 'HealthProblem' })
/** Something that is wrong, and what to do about it. */
export type HealthProblem = z.infer<typeof problemSchema>

const hostHealthSchema = z
  .object({
    id: z.string().optional().describe('Absent for one that has never answered.'),
    address: z.string(),
    answers: z.boolean(),
    last_seen_at: timestampSchema.optional(),
    running_capsules: z.int(),
    used_vcpus: z.int().describe('Of running capsules.'),
    used_memory_mb: z.int().describe('Of running capsules.'),
    capsules: z.int().describe('Sleeping ones too.'),
    templates: z.int().describe('That are on it alone, each version that has a tag by itself.'),
    unknown_capsules: z
      .array(z.string())
      .optional()
      .describe(
        'Ids of capsules that it has and the database does not know, as after a restore from a backup; nothing ends them. Absent while it does not answer.',
      ),
    agent_version: z.string().optional(),
    engine: z.string().optional(),
    status: z
      .object({
        ready: z.boolean().describe('A create will work.'),
        engine_version: z.string(),
        engine_reason: z.string().describe('Why it is this engine.'),
        kernel_version: z.string().describe('Of its guests.'),
        cpus: z.int(),
        memory_bytes: z.number(),
        memory_available_bytes: z.number(),
        pool_bytes: z.number(),
        pool_free_bytes: z.number(),
        pool_filesystem: z.string(),
        started_at: timestampSchema,
      })
      .optional()
      .describe('What it says of itself; absent while it does not answer.'),
  })
  .meta({ id: 'HostHealth' })
/** A machine that runs capsules. */
export type HostHealth = z.infer<typeof hostHealthSchema>

/** Answer of `GET /v1/admin/health`. */
export const platformHealthSchema = z
  .object({
    problems: z.array(problemSchema).describe('What is wrong, the worst first.'),
    hosts: z.array(hostHealthSchema),
    control_plane: z.object({
      version: z.string(),
      started_at: timestampSchema.describe('Of the one that answers.'),
      replicas: z.int().describe('Control planes that use this database.'),
    }),
    database: z.object({
      version: z.string(),
      migration: z.string().describe('The newest one that was applied.'),
      pending_migrations: z.int(),
      latency_ms: z.number(),
    }),
    mail: z.object({
      via: z.enum(['smtp', 'outbox', 'none']),
      to: z.string().optional().describe('Host and port of the mail server, or the folder.'),
      from: z.string(),
      waiting: z.int(),
      oldest_waiting_at: timestampSchema.optional(),
      given_up: z.int().describe('In the last 24 hours.'),
    }),
    lago: z
      .object({
        to: z.string().describe('Host and port of it.'),
        waiting: z.int().describe('Events that it has not taken yet; those that it refused included.'),
        oldest_waiting_at: timestampSchema.optional(),
        refused: z.int().describe('Events that it refused for themselves; they are tried again.'),
        problem: z.string().optional().describe('Why nothing is sent now, or why one was refused.'),
      })
      .optional()
      .describe('The billing system that is told what teams used; absent where there is none.'),
  })
  .meta({ id: 'PlatformHealth' })
/** How hosts and services do. */
export type PlatformHealth = z.infer<typeof platformHealthSchema>
