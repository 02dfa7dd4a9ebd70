import { z } from 'zod'
import { capsuleSchema, templateSchema } from './capsules.js'
import {
  capsuleEnvsSchema,
  capsuleIdSchema,
  labelsSchema,
  pathSchema,
  requestBody,
  text,
  timestampSchema,
} from './common.js'
import { portAccessSchema } from './ports.js'

/** Names that are also path segments and template names. */
export const safeNameSchema = z
  .string()
  .regex(
    /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$/,
    'must be 1 to 64 letters, digits or . _ - and start with a letter or digit',
  )

const waitSec = (fallback: number) =>
  z.coerce
    .number()
    .min(0)
    .max(300)
    .default(fallback)
    .describe('How long the answer may wait for the end; afterwards it shows the state as it is and the work goes on.')

/** Query of pause, resume, rollback: existing clients wait at most 5 s. */
export const lifecycleQuerySchema = z.object({ wait_sec: waitSec(4.5) })

/** Query of fork, checkpoint and snapshot, whose answers are made at their end. */
export const longLifecycleQuerySchema = z.object({ wait_sec: waitSec(60) })

const startFrom = z
  .enum(['memory', 'disk'])
  .default('memory')
  .describe(
    '`disk`: start from the files alone, where the memory cannot be loaded or is not wanted; processes are gone then.',
  )

/** Body of `POST /v1/capsules/{id}/resume`; may be absent. */
export const resumeRequestSchema = requestBody({ from: startFrom }).meta({ id: 'ResumeRequest' })
/** `resumeRequestSchema` as the server has it, defaults filled in. */
export type ResumeInput = z.output<typeof resumeRequestSchema>

/** Body of `POST /v1/capsules/{id}/checkpoints/{cid}/rollback`; may be absent. */
export const rollbackRequestSchema = requestBody({ from: startFrom }).meta({ id: 'RollbackRequest' })

/** Body of `PATCH /v1/capsules/{id}`: what is absent stays. A `name` of null takes the name away. */
export const updateCapsuleSchema = requestBody({
  name: text(128, 1).nullable().optional(),
  labels: labelsSchema.optional().describe('Replaces all labels.'),
  timeout_sec: z.int().min(0).max(31_536_000).optional(),
  auto_resume: z.boolean().optional(),
  port_access: portAccessSchema
    .optional()
    .describe('Private ports get a token; public and then private again: a new one. What is open stays open.'),
}).meta({ id: 'UpdateCapsule' })
/** What of a capsule changes; nothing at all is a valid request. */
export type UpdateCapsuleInput = z.output<typeof updateCapsuleSchema>

const ofCheckpoint = safeNameSchema
  .optional()
  .describe('Id or name of a checkpoint of the capsule: as it was then. Default: as it is.')

/** Body of `POST /v1/capsules/{id}/fork`. Memory, disk, size and egress are the source's and cannot be chosen. */
export const forkRequestSchema = requestBody({
  count: z.int().min(1).max(100).default(1),
  name: text(120, 1).optional().describe('Name of the copies; with several, `-1`, `-2`, … is added.'),
  labels: labelsSchema.optional().describe('Labels of the copies; default: those of the source.'),
  envs: capsuleEnvsSchema.default({}).describe('Added to the environment of the source.'),
  timeout_sec: z.int().min(0).max(31_536_000).optional().describe('Default: that of the source.'),
  checkpoint: ofCheckpoint,
}).meta({ id: 'ForkRequest' })
/** As a client sends it: an empty one makes one copy. */
export type ForkRequest = z.input<typeof forkRequestSchema>
/** As the server reads it. */
export type ForkInput = z.output<typeof forkRequestSchema>

/** Answer of a fork. All copies or none: there is no partial result. */
export const forkResultSchema = z
  .object({
    capsules: z.array(capsuleSchema),
    pause_window_ms: z.number().describe('How long the source stood still.'),
    timings: z.array(z.object({ step: z.string(), ms: z.number() })),
  })
  .meta({ id: 'ForkResult' })
/** The copies in the order of their numbers, and what the source paid for them. */
export type ForkResult = z.infer<typeof forkResultSchema>

const checkpointIdSchema = z
  .string()
  .regex(/^cp-[0-9a-z]{25}$/, 'must be a checkpoint id: cp- and 25 characters 0-9a-z')

/** Body of `POST /v1/capsules/{id}/checkpoints`. */
export const createCheckpointSchema = requestBody({
  name: safeNameSchema.optional().describe('Unique in its capsule. Default: checkpoint-1, -2, …'),
}).meta({ id: 'CreateCheckpoint' })

/** A point in time of a capsule. By `parent_id` they form a tree, in which a rollback begins a new branch. */
export const checkpointSchema = z
  .object({
    id: checkpointIdSchema,
    capsule_id: capsuleIdSchema,
    name: z.string(),
    parent_id: z.string().optional().describe('The checkpoint that the capsule stood on when this one was made.'),
    current: z.boolean().describe('Whether the capsule stands on it: made or rolled back to last.'),
    created_at: timestampSchema,
    size_bytes: z.number().optional().describe('Bytes of the pool that only it holds; absent until measured.'),
    durable: z.boolean().describe('Whether it would survive a power loss of its host.'),
    durable_at: timestampSchema.optional(),
    pause_window_ms: z
      .number()
      .optional()
      .describe('How long the capsule stood still; only in the answer to its making.'),
  })
  .meta({ id: 'Checkpoint' })
/** A checkpoint on the wire. */
export type Checkpoint = z.infer<typeof checkpointSchema>

/** One difference between two points in time. A rename is one `removed` and one `added`. */
export const fileChangeSchema = z
  .object({
    change: z.enum(['added', 'changed', 'removed']),
    path: z.string().describe('Each byte that is not UTF-8 as U+FFFD and its two hexadecimal digits, as everywhere.'),
    path_encoding: z
      .enum(['utf-8', 'base64'])
      .optional()
      .describe('Of older servers: base64 when the name is not UTF-8. Not sent any more.'),
    type: z.enum(['file', 'directory', 'symlink', 'other']),
    size: z.number(),
    what: z.array(z.string()).describe('For `changed`: content, mode, owner, type, target, xattr.'),
  })
  .meta({ id: 'FileChange' })
/** What became of one path; `what` is empty unless it is `changed`. */
export type FileChange = z.infer<typeof fileChangeSchema>

/** Query of `GET /v1/capsules/{id}/checkpoints/{a}/diff/{b}`, whose `b` may be `current`. */
export const diffQuerySchema = z.object({
  path: pathSchema.optional().describe('Only below this absolute path.'),
  limit: z.coerce.number().int().min(1).max(10_000).default(1000),
  cursor: text(8192, 1).optional().describe('`next_cursor` of the page before.'),
})

/** Query of `GET /v1/capsules/{id}/checkpoints/{cid}/file`, whose `cid` may be `current`. */
export const checkpointFileQuerySchema = z.object({
  path: pathSchema.describe('Absolute. Symbolic links are not followed.'),
})

/** A page of a diff. Without `next_cursor` it is the last one. */
export const diffResultSchema = z
  .object({
    from: z.string(),
    to: z.string(),
    changes: z.array(fileChangeSchema).describe('Sorted by path.'),
    next_cursor: z.string().optional(),
  })
  .meta({ id: 'Diff' })
/** Changes sorted by the bytes of their paths, so that pages fit together. */
export type DiffResult = z.infer<typeof diffResultSchema>

/** Body of `POST /v1/snapshots`. `sandbox_id` is what existing clients send; exactly one of the two must be there. */
export const createSnapshotSchema = requestBody({
  sandbox_id: capsuleIdSchema.optional().describe('The capsule; another name for `capsule_id`.'),
  capsule_id: capsuleIdSchema.optional(),
  name: safeNameSchema.optional().describe('Name of the template. Default: template- and 8 hexadecimal digits.'),
  checkpoint: ofCheckpoint,
})
  .refine((body) => (body.sandbox_id === undefined) !== (body.capsule_id === undefined), {
    message: 'needs exactly one of sandbox_id and capsule_id',
  })
  .meta({ id: 'CreateSnapshot' })
/** Which capsule, and the name of the template that it becomes. */
export type CreateSnapshotInput = z.output<typeof createSnapshotSchema>

/** The answer of `POST /v1/snapshots`. */
export const snapshotSchema = templateSchema

const use = z.object({ used: z.number(), limit: z.number().nullable().describe('null: no limit.') })

/** Answer of `GET /v1/quota`. A limit of null is none; what counts as running also counts what is about to run. */
export const quotaSchema = z
  .object({
    running_capsules: use,
    vcpus: use.describe('Of running capsules.'),
    memory_mb: use.describe('Of running capsules.'),
    pool_bytes: use.describe(
      'What capsules, checkpoints and snapshots hold of the pool together, beyond their templates, measured in the background, at least every 15 minutes.',
    ),
    capsules: use.describe('All that are not ended, paused ones too.'),
    creating_capsules: use.describe('Those that are being created now.'),
    api_calls_per_min: use.describe(
      'Since the minute of the clock began; what other control planes count is a second old.',
    ),
    plan: z.string().nullable().describe('Where limits come from that are not the own ones of the team.'),
  })
  .meta({ id: 'Quota' })
/** What the team of the key uses and may use. */
export type Quota = z.infer<typeof quotaSchema>
