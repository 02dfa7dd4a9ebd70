import { z } from 'zod'
import { capsuleIdSchema, envsSchema, pathSchema, requestBody, text, timestampSchema, userSchema } from './common.js'

const argument = text(1024 * 1024)
/** Not digits alone, because a selector of digits is a process id. {@link processSelectorSchema} takes what this admits. */
export const tagSchema = text(128, 1)
  .regex(/^[A-Za-z0-9._:-]*[^0-9][A-Za-z0-9._:-]*$/, 'must hold only letters, digits and . _ : - and not be a number')
  .describe('Your name for the process; unique among those that run in the capsule.')

/** The deadline travels to the guest as 32-bit milliseconds. */
const timeoutSec = z.number().min(0).max(4_000_000)

/** How bytes travel in JSON. base64 is the answer's choice too, whenever output is not UTF-8. */
export const encodings = ['utf-8', 'base64'] as const

/** Body of `POST /v1/capsules/{id}/exec`. The program is run directly, without a shell, so that arguments need no quoting. */
export const execRequestSchema = requestBody({
  cmd: text(1024 * 1024, 1).describe('Program, run directly; use /bin/sh with -c for a shell line.'),
  args: z.array(argument).max(4096).default([]),
  envs: envsSchema.default({}),
  cwd: pathSchema.optional(),
  user: userSchema.optional(),
  stdin: z.string().optional().describe('What the program reads; then its input ends. Absent: no input.'),
  stdin_encoding: z.enum(encodings).default('utf-8'),
  timeout_sec: timeoutSec
    .optional()
    .describe(
      'After this time the process and its children are killed; 0 means never. It counts while the capsule runs, not while it is paused. Default: 30 in the foreground, never in the background.',
    ),
  background: z.boolean().default(false).describe('Answer 202 at once; follow it through its stream.'),
  tag: tagSchema.optional(),
  atomic: z
    .boolean()
    .default(false)
    .describe(
      'All or nothing: when the command fails, times out, is killed or takes the guest down, memory, files and processes are as before it, and so is what others did in the capsule meanwhile. Foreground only, one at a time in a capsule; it ends also when the client hangs up.',
    ),
}).meta({ id: 'ExecRequest' })
/** As a client sends it: only `cmd` must be there. */
export type ExecRequest = z.input<typeof execRequestSchema>
/** As the server reads it. `timeout_sec` stays absent, because its default depends on `background`. */
export type ExecInput = z.output<typeof execRequestSchema>

/** Answer of a foreground exec. A command that fails, or whose time is over, is a 200 with its exit code, not an error. */
export const execResultSchema = z
  .object({
    sandbox_id: capsuleIdSchema,
    capsule_id: capsuleIdSchema,
    cmd: z.string(),
    pid: z.int(),
    stdout: z.string(),
    stderr: z.string(),
    exit_code: z.int().describe('128 + n when signal n ended the process, 124 after `timeout_sec`.'),
    duration_ms: z.int(),
    encoding: z.enum(encodings).describe('Of both streams; base64 when either is not UTF-8.'),
    timed_out: z
      .boolean()
      .describe('The process was killed after `timeout_sec`; the output is what it wrote until then.'),
    truncated: z.boolean().describe('There was more output than an answer holds; use exec/stream for all of it.'),
    signal: z.int().optional().describe('Number of the signal that ended the process.'),
    oom_killed: z.boolean().optional(),
    hint: z.string().optional(),
    rolled_back: z
      .boolean()
      .optional()
      .describe('Only with `atomic`: whether the capsule was put back to where it was before the command.'),
  })
  .meta({ id: 'ExecResult' })
/** What a foreground command did; output is text or base64, as `encoding` says. */
export type ExecResult = z.infer<typeof execResultSchema>

/** Answer (202) of a background exec: by `pid` or `tag` it is followed, signalled and listed. */
export const backgroundResultSchema = z
  .object({ sandbox_id: capsuleIdSchema, capsule_id: capsuleIdSchema, cmd: z.string(), pid: z.int(), tag: z.string() })
  .meta({ id: 'BackgroundProcess' })
/** A process that runs on by itself. */
export type BackgroundResult = z.infer<typeof backgroundResultSchema>

const processInfoSchema = z
  .object({
    pid: z.int(),
    tag: z.string().optional(),
    cmd: z.string(),
    args: z.array(z.string()),
    cwd: z.string().optional(),
    pty: z.boolean(),
    running: z.boolean(),
    output_offset: z.number().describe('Bytes of output so far.'),
    started_at: timestampSchema.optional(),
  })
  .meta({ id: 'Process' })
/** A process started through the API. `running` is false only where ended ones were asked for. */
export type ProcessInfo = z.infer<typeof processInfoSchema>

/** Answer of `GET /v1/capsules/{id}/processes`. */
export const processListSchema = z.object({ processes: z.array(processInfoSchema) }).meta({ id: 'ProcessList' })
/** The processes of one capsule that were started through the API. */
export type ProcessList = z.infer<typeof processListSchema>

const signalNames = [
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGKILL',
  'SIGUSR1',
  'SIGUSR2',
  'SIGTERM',
  'SIGCONT',
  'SIGSTOP',
] as const
/** Signals by name, because numbers differ between architectures. These are the ones that the guest protocol has. */
export type SignalName = (typeof signalNames)[number]
/** The name in a query or a frame. */
export const signalSchema = z.enum(signalNames)

/** All digits: a process id; anything else: a tag. */
export const processSelectorSchema = text(128, 1)
  .regex(/^(?:[1-9][0-9]{0,9}|[A-Za-z0-9._:-]*[^0-9][A-Za-z0-9._:-]*)$/, 'must be a process id or a tag')
  .describe('Process id (all digits) or tag.')
