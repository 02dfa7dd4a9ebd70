import { z } from 'zod'
import { buildStates } from '../build-states.js'
import { templateBuildLimits } from '../template-build-limits.js'
import { minimumMemoryMib } from './capsules.js'
import { envsSchema, requestBody, text, timestampSchema } from './common.js'
import { wantedHostTagsSchema } from './hosts.js'
import { safeNameSchema } from './lifecycle.js'

/** What steps there are. */
export const buildStepTypes = ['RUN', 'COPY', 'ENV', 'WORKDIR', 'USER'] as const
/** One of `buildStepTypes`. */
export type BuildStepType = (typeof buildStepTypes)[number]
/** How a build's log marks its lines. */
export const buildLogLevels = ['debug', 'info', 'warn', 'error'] as const
/** One of `buildLogLevels`. */
export type BuildLogLevel = (typeof buildLogLevels)[number]

const MAX_LOG_LINES = 1_000
const MAX_WAIT_SEC = 30

/** Also a path segment; no other text reaches the database. */
export const buildIdSchema = z
  .string()
  .regex(/^bld-[0-9a-z]{25}$/, 'must be the id of a build: bld- and 25 characters 0-9a-z')
/** By what the files of a step are called; also a path segment. */
export const filesHashSchema = z.string().regex(/^[0-9a-f]{64}$/, 'must be a SHA-256 in 64 hexadecimal digits')

/** Body of `POST /v1/templates/builds`. */
export const beginTemplateBuildSchema = requestBody({
  name: safeNameSchema.describe(
    'Of the template; one that a build has made before is replaced when this one is ready.',
  ),
  tags: z
    .array(safeNameSchema)
    .max(templateBuildLimits.tags)
    .default([])
    .describe(
      'What the build is called beside it: `name:tag`. Without any, or with `default`, the name stands for it.',
    ),
  vcpus: z.int().min(1).max(1024).optional().describe('Default: those of what it begins with.'),
  memory_mb: z.int().min(minimumMemoryMib).max(4_194_304).optional().describe('Default: that of what it begins with.'),
}).meta({ id: 'BeginTemplateBuild' })
/** As the server reads it. */
export type BeginTemplateBuildInput = z.output<typeof beginTemplateBuildSchema>

const secretIdSchema = text(100, 1).regex(/^[A-Za-z0-9_.-]+$/, 'must have letters, digits and _ . - alone')
const guestPath = text(4096, 1).regex(/^\//, 'must begin with a slash')

const stepSecretSchema = requestBody({
  id: secretIdSchema,
  path: guestPath.optional().describe('The file that it is while the step runs; default: none.'),
  env: text(256, 1)
    .regex(/^[^=]+$/, 'must not contain =')
    .optional()
    .describe('The variable that it is while the step runs; default: none.'),
  mode: z.int().min(0).max(0o777).optional().describe('Of the file; default: 256, which is 0400.'),
  owner: z
    .string()
    .regex(/^\d{1,10}:\d{1,10}$/, 'must be two numbers, as 0:0')
    .optional(),
})

const buildStepSchema = requestBody({
  type: z.enum(buildStepTypes),
  args: z
    .array(text(templateBuildLimits.lineLength))
    .min(1)
    .max(templateBuildLimits.args)
    .describe(
      [
        'RUN: what is run, after `shell`. COPY: source, destination, owner, mode. ENV: names and values in turn.',
        'WORKDIR: a path. USER: a user, and `:` and a group.',
        'All but RUN as words of a Dockerfile: with its quotes and variables.',
      ].join(' '),
    ),
  shell: z
    .array(text(4096))
    .max(100)
    .optional()
    .describe('RUN: program and arguments before what is run. Default: /bin/sh -c.'),
  envs: envsSchema.optional().describe('Variables of this step alone, as ARG gives them.'),
  secrets: z
    .array(stepSecretSchema)
    .max(templateBuildLimits.secrets)
    .optional()
    .describe('RUN: what it may read while it runs.'),
  scratch: z
    .array(guestPath)
    .max(templateBuildLimits.scratch)
    .optional()
    .describe('RUN: folders that are empty while it runs, and of which nothing stays.'),
  files_hash: filesHashSchema.optional().describe('COPY of uploaded files: by what they are called.'),
  files: z
    .array(z.tuple([text(4096), text(64)]))
    .max(templateBuildLimits.toldFiles)
    .optional()
    .describe('COPY of uploaded files: their paths and digests, so that a later build can say which one changed.'),
  stage: z
    .int()
    .min(0)
    .max(templateBuildLimits.stages)
    .optional()
    .describe('COPY from a stage before this one: its place, from 0 on.'),
  label: text(500).optional().describe('The step as the log calls it.'),
  line: z.int().min(1).max(1_000_000).optional().describe('Of the file that it was written in, as errors tell it.'),
})
/** A step as the server reads it. */
export type TemplateBuildStepInput = z.output<typeof buildStepSchema>

const imageFileSchema = requestBody({
  files_hash: filesHashSchema.describe('By what the uploaded file is called.'),
  image: text(512, 1)
    .optional()
    .describe('By what the image is called in it, or @ and its place. Default: it has one alone.'),
})

/** Program and arguments, or a part of them. */
const argvSchema = z.array(text(templateBuildLimits.lineLength)).max(templateBuildLimits.words)

/** Body of `POST /v1/templates/builds/{id}/start`. */
export const startTemplateBuildSchema = requestBody({
  stages: z
    .array(
      requestBody({
        from: text(512, 1).describe(
          'What it begins with: a template, an image of a registry, or one of `image_files`.',
        ),
        steps: z.array(buildStepSchema).max(templateBuildLimits.steps),
      }),
    )
    .min(1)
    .max(templateBuildLimits.stages)
    .describe('The last one becomes the template; the others are there to be copied from.'),
  image_files: z
    .record(text(512, 1), imageFileSchema)
    .refine((files) => Object.keys(files).length <= templateBuildLimits.stages, {
      error: `must have at most ${templateBuildLimits.stages} entries`,
    })
    .default({})
    .describe(
      'What stages begin with that are images of uploaded files, by their `from`: of `docker save`, or tars of OCI layouts; also of gzip, zstd or xz.',
    ),
  start_command: text(templateBuildLimits.lineLength, 1)
    .optional()
    .describe(
      'Runs in the template, from before its snapshot on; a line for a shell. Not beside `entrypoint` and `command`.',
    ),
  entrypoint: argvSchema
    .optional()
    .describe(
      'What runs in the template as in a container: program and arguments, which `command` goes on. Default: that of the image that the last stage begins with.',
    ),
  command: argvSchema
    .optional()
    .describe('What goes on `entrypoint`. Default: that of the image, unless `entrypoint` is given.'),
  ports: z
    .array(z.int().min(1).max(65_535))
    .max(templateBuildLimits.ports)
    .default([])
    .describe(
      'Without a ready command it is waited until one of these, or of those that the image says, is listened on; 30 s at most.',
    ),
  ready_command: text(templateBuildLimits.lineLength, 1)
    .optional()
    .describe('Succeeds once the start command has done its work.'),
  no_cache: z.boolean().default(false).describe('Nothing is taken from what earlier builds have kept.'),
  host_tags: wantedHostTagsSchema
    .optional()
    .describe('Only a host that has all of these tags builds it, and so runs what is made of it.'),
  secrets: z
    .record(secretIdSchema, text(templateBuildLimits.secretLength, 1))
    .refine((secrets) => Object.keys(secrets).length <= templateBuildLimits.secrets, {
      error: `must have at most ${templateBuildLimits.secrets} entries`,
    })
    .default({})
    .describe('By their ids. Encrypted until the build ends, and in no answer, log, cache or template.'),
}).meta({ id: 'StartTemplateBuild' })
/** As the server reads it. */
export type StartTemplateBuildInput = z.output<typeof startTemplateBuildSchema>

/** A build of a template. */
export const templateBuildSchema = z
  .object({
    id: z.string(),
    name: z.string().describe('Of the template.'),
    tags: z.array(z.string()),
    state: z.enum(buildStates).describe('`draft`: not started yet.'),
    reason: z
      .object({ message: z.string(), step: z.string().optional(), line: z.int().optional() })
      .optional()
      .describe(
        'Why it ended without a template, and where: `base`, the number of a step, or `finalize`; and the line that the step was written in.',
      ),
    by: z
      .object({ type: z.enum(['key', 'user']), id: z.string(), name: z.string() })
      .optional()
      .describe(
        'Who began it, by the name that a key had then, or a person has now; empty for an account that is gone.',
      ),
    steps: z.int().optional().describe('How many steps it has, of all stages; absent until it is started.'),
    cached_steps: z
      .int()
      .optional()
      .describe(
        'How many of them were taken from what earlier builds have kept, or not needed because of that; absent until it is known.',
      ),
    log_lines: z.int().describe('How many lines its log has.'),
    created_at: timestampSchema,
    ended_at: timestampSchema.optional(),
  })
  .meta({ id: 'TemplateBuild' })
/** On the wire. */
export type TemplateBuild = z.infer<typeof templateBuildSchema>

/** Query of `GET /v1/templates/builds`. */
export const listTemplateBuildsQuerySchema = z.object({
  name: safeNameSchema.optional().describe('Of the template; default: all.'),
  state: z
    .enum([...buildStates, 'open'])
    .optional()
    .describe('`open`: those that have not ended; default: all.'),
  before: buildIdSchema.optional().describe('Only those that were begun before this one, as the last one of a page.'),
  limit: z.coerce.number().int().min(1).max(200).default(50),
})
/** As the server reads it. */
export type ListTemplateBuildsQuery = z.output<typeof listTemplateBuildsQuerySchema>

/** Query of `GET /v1/templates/builds/{id}/log`. */
export const templateBuildLogQuerySchema = z.object({
  from: z.coerce
    .number()
    .int()
    .min(0)
    .max(2 ** 31 - 1)
    .default(0)
    .describe('`next` of the answer before.'),
  limit: z.coerce.number().int().min(1).max(MAX_LOG_LINES).default(MAX_LOG_LINES),
  wait_sec: z.coerce
    .number()
    .min(0)
    .max(MAX_WAIT_SEC)
    .default(0)
    .describe('How long the answer may wait for the next line, or the end of the build.'),
})

/** Lines of a build's log, and how far it is. After a page without lines of a build that has ended there are no more. */
export const templateBuildLogSchema = z
  .object({
    build: templateBuildSchema,
    lines: z.array(
      z.object({
        at: timestampSchema,
        level: z.enum(buildLogLevels).describe('What a command prints to stderr is `warn`.'),
        step: z.string().describe('`base`, the number of a step, or `finalize`.'),
        message: z.string(),
      }),
    ),
    next: z.int().describe('Where the next page begins.'),
  })
  .meta({ id: 'TemplateBuildLog' })
/** On the wire. */
export type TemplateBuildLog = z.infer<typeof templateBuildLogSchema>

/** Answer of `GET /v1/templates/builds/{id}/files/{hash}`. */
export const buildFilesSchema = z
  .object({
    present: z.boolean().describe('They are here already.'),
    upload_url: z.string().describe('Where a PUT of their tar goes; it needs no key.'),
  })
  .meta({ id: 'TemplateBuildFiles' })
/** On the wire. */
export type TemplateBuildFiles = z.infer<typeof buildFilesSchema>
