import { z } from 'zod'
import { type MetricsRange, metricsRanges } from '../metrics-ranges.js'
import { capsuleStates, wireStatuses } from '../states.js'
import {
  capsuleEnvsSchema,
  capsuleIdSchema,
  labelsSchema,
  pathSchema,
  requestBody,
  text,
  timestampSchema,
  userSchema,
} from './common.js'
import { egressPolicySchema, egressWishSchema } from './egress.js'
import { wantedHostTagsSchema } from './hosts.js'
import { portAccessSchema } from './ports.js'

const templateName = text(128, 1).regex(
  /^[A-Za-z0-9][A-Za-z0-9._:/-]*$/,
  'must start with a letter or digit and hold only letters, digits and . _ : / -',
)

/** With less the guest's kernel, initramfs and agent do not fit, and no guest comes up. */
export const minimumMemoryMib = 128

/**
 * Body of `POST /v1/capsules`. What is too much for this platform or team is refused later, by its configuration.
 * `auto_resume` is false here and true in the SDK: existing clients expect a paused capsule to stay so.
 */
export const createCapsuleSchema = requestBody({
  template: templateName.default('minimal'),
  name: text(128, 1).optional().describe('A name for people; need not be unique.'),
  labels: labelsSchema.default({}),
  metadata: labelsSchema.optional().describe('Another name for `labels`.'),
  envs: capsuleEnvsSchema.default({}),
  vcpus: z.int().min(1).max(1024).optional().describe('Virtual CPUs. Default: what the template asks for.'),
  memory_mb: z
    .int()
    .min(minimumMemoryMib)
    .max(4_194_304)
    .optional()
    .describe('Memory in MiB. Default: what the template asks for.'),
  disk_size_mb: z.int().min(64).max(67_108_864).optional().describe('Writable space in MiB.'),
  timeout_sec: z
    .int()
    .min(0)
    .max(31_536_000)
    .default(0)
    .describe('Seconds without activity after which the capsule is paused; 0 means never.'),
  auto_resume: z
    .boolean()
    .default(false)
    .describe('Whether a paused capsule wakes when it is used: commands, files, terminals, its ports.'),
  port_access: portAccessSchema
    .default('public')
    .describe('Who may reach its ports by their URLs: whoever knows its id, or whoever has its token.'),
  egress: egressWishSchema.optional(),
  user: userSchema.optional().describe('Default user of commands and files.'),
  cwd: pathSchema.optional().describe('Default working directory of commands.'),
  host_tags: wantedHostTagsSchema
    .optional()
    .describe(
      'Only a host that has all of these tags runs it; a host has those that an admin of the platform gave it.',
    ),
}).meta({ id: 'CreateCapsule' })
/** As a client sends it: everything may be left out. */
export type CreateCapsuleRequest = z.input<typeof createCapsuleSchema>
/** As the server reads it: with defaults; `labels` and its other name `metadata` are still two. */
export type CreateCapsuleInput = z.output<typeof createCapsuleSchema>

const capsuleExitSchema = z
  .object({
    cause: z
      .string()
      .describe(
        'guest_shutdown, guest_panic, guest_reset, oom_killed, killed, engine_failure, create_failed or unknown.',
      ),
    message: z.string(),
    exit_code: z.int().optional(),
    signal: z.string().optional(),
    console_tail: z.string().optional().describe('What the console said last.'),
    at: timestampSchema.optional(),
  })
  .meta({ id: 'CapsuleExit' })
/** Why a capsule ended by itself. `cause` is a text, not a closed set, so that a client outlives new causes. */
export type CapsuleExit = z.infer<typeof capsuleExitSchema>

const timingSchema = z.object({ step: z.string(), ms: z.number() })

/** What counts as use of a capsule. */
export const awakeReasons = ['stream', 'process', 'traffic', 'cpu', 'operation'] as const
/**
 * An open stream, a command that somebody waits for, more than 10 % of one CPU of the host. Nothing says `traffic` and
 * `operation` yet; they are reserved.
 */
export type AwakeReason = (typeof awakeReasons)[number]

/**
 * Why it was paused: on request, by the idle rule, because its life was over, because its host was short of memory or of pool space, or by a restart of
 * its host, after which it went back to its last saved state.
 */
export const pauseReasons = ['request', 'idle', 'lifetime', 'memory_pressure', 'pool_low', 'host_restart'] as const
/** Told as `pause_reason`, also after the capsule was resumed. */
export type PauseReason = (typeof pauseReasons)[number]

/**
 * A capsule as every route answers. Fields are optional where a state or an older record lacks them; `last_updated`,
 * `guest_ip` and `host_ip` are what existing clients read.
 */
export const capsuleSchema = z
  .object({
    id: capsuleIdSchema,
    name: z.string().optional(),
    status: z.enum(wireStatuses).describe('The nearest status of a closed set; `state` is exact.'),
    state: z.enum(capsuleStates),
    template: z.string(),
    vcpus: z.int(),
    memory_mb: z.int(),
    disk_size_mb: z.int(),
    timeout_sec: z.int(),
    guest_ip: z.string().optional(),
    host_ip: z.string().optional(),
    host_id: z.string().optional(),
    created_at: timestampSchema,
    started_at: timestampSchema.optional(),
    last_active_at: timestampSchema.optional(),
    last_updated: timestampSchema,
    labels: z.record(z.string(), z.string()),
    metadata: z
      .record(z.string(), z.string())
      .describe('engine, engine_version, kernel_version, agent_version, envd_version; what is known of them.'),
    egress: egressPolicySchema.optional(),
    engine: z.string().optional().describe('firecracker, qemu-kvm or qemu-tcg.'),
    path: z.string().optional().describe('How it was created: hot, restore or cold.'),
    timings: z.array(timingSchema).optional().describe('Steps of the create in their order; only in its answer.'),
    exit: capsuleExitSchema.optional().describe('Why it ended, when it ended by itself.'),
    auto_resume: z.boolean(),
    port_access: portAccessSchema,
    pauses_at: timestampSchema
      .optional()
      .describe('When it will be paused if nothing happens; absent without a timeout.'),
    ends_at: timestampSchema
      .optional()
      .describe('When its life is over, however it is used; absent where it has no end, as without an E2B client.'),
    on_end: z.enum(['kill', 'pause']).optional().describe('What becomes of it then.'),
    awake_because: z
      .array(z.enum(awakeReasons))
      .optional()
      .describe('What has kept it from being paused although its timeout is over.'),
    pause_reason: z
      .enum(pauseReasons)
      .optional()
      .describe('Why it was paused last: request, idle, lifetime, memory_pressure, pool_low or host_restart.'),
    paused_at: timestampSchema.optional(),
    durable: z
      .boolean()
      .optional()
      .describe('Whether the saved state of a paused capsule would survive a power loss of its host.'),
    durable_at: timestampSchema.optional(),
    notice: z
      .string()
      .optional()
      .describe('What its owner should know, such as that an older state had to be resumed.'),
    parent_id: z.string().optional().describe('The capsule it was forked from.'),
    snapshot_id: z.string().optional().describe('The snapshot it was started from.'),
    checkpoint_id: z.string().optional().describe('The checkpoint it stands on: made or rolled back to last.'),
    disk_bytes: z
      .number()
      .optional()
      .describe(
        'Bytes of the pool that it and its checkpoints hold together, beyond its template; absent until measured.',
      ),
    lifecycle_timings: z
      .array(timingSchema)
      .optional()
      .describe('Steps of the pause, resume or rollback that this answers.'),
  })
  .meta({ id: 'Capsule' })
/** A capsule on the wire: times are texts, `memory_mb` and `disk_size_mb` count MiB. */
export type Capsule = z.infer<typeof capsuleSchema>

const waitSec = z.coerce.number().min(0).max(300)

/** Query of `POST /v1/capsules`. The default answers before the 5 s after which existing clients give up. */
export const createCapsuleQuerySchema = z.object({
  wait_sec: waitSec
    .default(4.5)
    .describe(
      'How long the answer may wait for `running`; afterwards it is the capsule in `starting`, and the create goes on.',
    ),
})

/** A query parameter that may come once, several times, or comma-separated. */
const many = z
  .union([z.string(), z.array(z.string())])
  .transform((value) => [value].flat().flatMap((part) => part.split(',')))

/** Query of `GET /v1/capsules`. Filters that are given must all match. */
export const listCapsulesQuerySchema = z.object({
  status: many
    .pipe(z.array(z.enum([...capsuleStates, 'all'])).max(16))
    .optional()
    .describe('Statuses or states, comma-separated, or `all`. Default: everything but stopped and error.'),
  template: text(128, 1).optional(),
  name: text(128, 1).optional().describe('Exact name.'),
  label: z
    .union([text(320, 1), z.array(text(320, 1)).max(16)])
    .transform((value) => [value].flat())
    .pipe(z.array(z.string().regex(/^[^=]+=/, 'must be key=value')))
    .optional()
    .describe('key=value; may be repeated, all must match.'),
  limit: z.coerce.number().int().min(1).max(1000).default(1000),
  cursor: text(256, 1).optional().describe('The `x-next-token` header of the page before.'),
})
/** As the server reads it: texts have become lists and numbers. */
export type ListCapsulesQuery = z.output<typeof listCapsulesQuerySchema>

const metricsRangeNames = Object.keys(metricsRanges) as MetricsRange[] // of a table that is written above
/** As the API is asked for one. */
export const metricsRangeSchema = z.enum(metricsRangeNames)

/** What a capsule used in a step, measured outside its guest. */
export const metricsPointSchema = z.object({
  timestamp_unix: z.int(),
  cpu_pct: z.number().describe('Percent of all vCPUs, on average.'),
  cpu_max_pct: z.number().optional().describe('The highest in steps of 5 s.'),
  mem_bytes: z.number().describe('Resident memory of the process that runs the guest.'),
  disk_bytes: z.number().describe("What its disk takes of the host's pool."),
  net_rx_bytes: z.number().optional().describe('Received in the step. Absent where nobody counted.'),
  net_tx_bytes: z.number().optional().describe('Sent in the step.'),
})

/**
 * Answer of `GET /v1/capsules/{id}/metrics`. Fields of `current` that begin with `host_` are measured outside the guest, as `points` are,
 * the rest inside.
 */
export const metricsSchema = z
  .object({
    sandbox_id: capsuleIdSchema,
    capsule_id: capsuleIdSchema,
    range: metricsRangeSchema,
    step_sec: z.int().describe('Between points.'),
    points: z.array(metricsPointSchema).describe('Oldest first; none of times when the capsule did not run.'),
    current: z
      .object({
        timestamp: timestampSchema,
        cpu_pct: z.number().describe('Percent of all vCPUs.'),
        cpu_count: z.int(),
        mem_used_bytes: z.number(),
        mem_total_bytes: z.number(),
        mem_cache_bytes: z.number(),
        disk_used_bytes: z.number(),
        disk_total_bytes: z.number(),
        host_rss_bytes: z.number().describe('What the capsule costs its host.'),
        host_cpu_ns: z.number(),
        host_disk_bytes: z.number(),
      })
      .optional()
      .describe('Absent only with a `range`, when the capsule does not run, does not answer or was not to be asked.'),
  })
  .meta({ id: 'CapsuleMetrics' })
/** What a capsule has used, and uses now; bytes throughout, and CPU in percent of all its vCPUs. */
export type CapsuleMetrics = z.infer<typeof metricsSchema>

/** `base`: what images bring, the same for all teams. `snapshot`: a capsule's saved state that its team kept. */
export const templateTypes = ['base', 'snapshot'] as const

/** A template as `/v1/snapshots` lists it; the route's name is older than base templates in its answer. */
export const templateSchema = z
  .object({
    name: z.string(),
    type: z.enum(templateTypes),
    platform: z.boolean().describe('Built in, the same for every team; cannot be deleted.'),
    snapshot_id: z.string().optional(),
    durable: z.boolean().optional().describe('Whether it would survive a power loss of its host.'),
    disk_size_mb: z.int().optional(),
    metadata: z.record(z.string(), z.string()).optional(),
    aliases: z.array(z.string()),
    description: z.string().optional(),
    vcpus: z.int(),
    memory_mb: z.int(),
    size_bytes: z
      .number()
      .optional()
      .describe('Of a snapshot: bytes of the pool that only it holds; 0 until measured.'),
    created_at: timestampSchema,
  })
  .meta({ id: 'Template' })
/**
 * A template on the wire. `snapshot_id`, `disk_size_mb` and `durable` are only of snapshots, `description` only of base
 * templates.
 */
export type Template = z.infer<typeof templateSchema>

/** What a create without sizes gets; host agents keep the hot pool of this shape. */
export const capsuleDefaults = { template: 'minimal', vcpus: 1, memoryMib: 512, diskSizeMib: 5120 } as const

/** Header that makes a create repeatable: the same key and body give the same capsule. */
export const IDEMPOTENCY_HEADER = 'idempotency-key'
