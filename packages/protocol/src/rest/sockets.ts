import { z } from 'zod'
import { capsuleStates } from '../states.js'
import { envsSchema, pathSchema, text, userSchema } from './common.js'
import { execRequestSchema, signalSchema, tagSchema } from './exec.js'

/** Without credentials in the handshake, the first message must be this one, within 5 seconds. */
export const authFrameSchema = z.object({
  type: z.literal('auth'),
  api_key: text(512, 1).optional(),
  token: text(8192, 1).optional(),
})
/** Credentials of a client that cannot set headers in a handshake, as no browser can. */
export type AuthFrame = z.infer<typeof authFrameSchema>

const base64 = z.base64()
const terminalSize = z.int().min(1).max(65_535)
const offset = z.int().min(0)
const stateFrame = z
  .object({ type: z.literal('state'), state: z.enum(capsuleStates) })
  .describe('Of the capsule, first and whenever it changed; only with `states=true`.')
const firstOffset = offset.optional().describe('Where the output that follows begins: what to come back with.')

/** First message of `/v1/capsules/{id}/exec/stream`. */
export const execStartFrameSchema = execRequestSchema
  .pick({ cmd: true, args: true, envs: true, cwd: true, user: true, timeout_sec: true, tag: true })
  .strip()
  .extend({
    type: z.literal('start'),
    stdin: z.boolean().default(false).describe('The process reads `stdin` frames. False: no input.'),
    encoding: z
      .enum(['text', 'base64'])
      .default('text')
      .describe('How output frames carry data; text damages bytes that are not UTF-8.'),
  })
/**
 * As a client sends it: only `type` and `cmd` must be there. Fields beyond these are ignored, as existing clients send some.
 */
export type ExecStartFrame = z.input<typeof execStartFrameSchema>

/** What a client may send on an exec or process stream after it started. */
export const processInputFrameSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('stdin'), data: base64 }),
  z.object({ type: z.literal('stdin_close') }),
  z.object({ type: z.literal('signal'), signal: signalSchema }),
  z.object({ type: z.literal('stop') }).describe('Kills the process and its children.'),
])
/** Input of a process. Bytes may also come as binary frames of kind `input`. */
export type ProcessInputFrame = z.infer<typeof processInputFrameSchema>

/** What the server sends on exec and process streams. */
export const processOutputFrameSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('start'), pid: z.int(), tag: z.string().optional(), offset: firstOffset }),
  z.object({ type: z.literal('stdout'), data: z.string(), offset: offset.optional(), encoding: z.string().optional() }),
  z.object({ type: z.literal('stderr'), data: z.string(), offset: offset.optional(), encoding: z.string().optional() }),
  z.object({ type: z.literal('output'), data: base64, offset: offset.optional() }).describe('Output of a terminal.'),
  z.object({ type: z.literal('lost'), from: offset, to: offset }).describe('Output that is no longer kept.'),
  z.object({
    type: z.literal('exit'),
    exit_code: z.int(),
    signal: z.int().optional(),
    timed_out: z.boolean().optional(),
    oom_killed: z.boolean().optional(),
    offset: offset.optional().describe('Bytes of output in all.'),
  }),
  z.object({
    type: z.literal('error'),
    data: z.string(),
    code: z.string(),
    fatal: z.boolean(),
    hint: z.string().optional(),
  }),
  stateFrame,
])
/** Output of a process. Offsets count both its streams together; with the binary subprotocol bytes come as binary frames. */
export type ProcessOutputFrame = z.infer<typeof processOutputFrameSchema>

/** First message of `/v1/capsules/{id}/pty`. */
export const ptyStartFrameSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('start'),
    cmd: text(4096, 1).default('/bin/bash'),
    args: z.array(text(131_072)).max(1024).default([]),
    cols: terminalSize.default(80),
    rows: terminalSize.default(24),
    envs: envsSchema.default({}),
    cwd: pathSchema.optional(),
    user: userSchema.optional(),
    tag: tagSchema.optional(),
  }),
  z.object({
    type: z.literal('connect'),
    tag: text(128, 1),
    from_offset: offset.optional().describe('Replay from here. Absent: only what comes from now on.'),
  }),
])
/** `start` opens a terminal, `connect` comes back to one by its tag. */
export type PtyStartFrame = z.input<typeof ptyStartFrameSchema>

/** What a client may send on `/v1/capsules/{id}/pty` after the first message. `kill` ends all processes of the terminal. */
export const ptyInputFrameSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('input'), data: base64 }),
  z.object({ type: z.literal('resize'), cols: terminalSize, rows: terminalSize }),
  z.object({ type: z.literal('kill') }),
])
/** Input of a terminal, as typed. Bytes may also come as binary frames of kind `input`. */
export type PtyInputFrame = z.infer<typeof ptyInputFrameSchema>

/**
 * What the server sends on `/v1/capsules/{id}/pty`. `ping` comes beside the WebSocket's own, for clients whose library hides
 * those; it wants no answer.
 */
export const ptyOutputFrameSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('started'), tag: z.string(), pid: z.int(), offset: firstOffset }),
  z.object({ type: z.literal('output'), data: base64, offset: offset.optional() }),
  z.object({ type: z.literal('lost'), from: offset, to: offset }),
  z.object({ type: z.literal('exit'), exit_code: z.int(), signal: z.int().optional(), offset: offset.optional() }),
  z.object({
    type: z.literal('error'),
    data: z.string(),
    code: z.string(),
    fatal: z.boolean(),
    hint: z.string().optional(),
  }),
  z.object({ type: z.literal('ping') }),
  stateFrame,
])
/** Output of a terminal: one stream, because a terminal mixes what programs write to it. */
export type PtyOutputFrame = z.infer<typeof ptyOutputFrameSchema>

/** Query of every WebSocket of a capsule. */
export const socketQuerySchema = z.object({
  states: z
    .enum(['true', 'false'])
    .default('false')
    .describe('Also send the state of the capsule in `state` frames: a process is silent while its capsule is paused.'),
  auth: z
    .enum(['message'])
    .optional()
    .describe('The first message has the key or token; cookies that come with the handshake are not looked at.'),
})

/** Query of `/v1/capsules/{id}/processes/{selector}/stream`. */
export const processStreamQuerySchema = socketQuerySchema.extend({
  from_offset: z.coerce
    .number()
    .int()
    .min(0)
    .optional()
    .describe('Replay output from this byte. Absent: only what comes from now on.'),
  encoding: z.enum(['text', 'base64']).default('text'),
})
