import type { MessageInitShape } from '@bufbuild/protobuf'
import { AppError } from '@wrenn/base'
import {
  type Process,
  type ProcessInfoSchema,
  type ProcessInput,
  type ProcessSelector,
  Signal,
  type StartRequest,
  type StreamInputRequest,
} from '@wrenn/protocol/guest'
import type { Identity } from '../identity/identity.js'
import { environmentOf, workingDirectory } from '../process/environment.js'
import { type ProcessEvents, sendOutput } from '../process/event-encoding.js'
import type { Follower, SessionEnd } from '../process/follower.js'
import type { LaunchSpec, TerminalSize } from '../process/launched-process.js'
import type { SystemLocale } from '../process/locale.js'
import type { ProcessRegistry } from '../process/registry.js'
import type { Session } from '../process/session.js'
import { keepaliveOf } from './keepalive.js'
import type { RpcCall, ServiceHandlers } from './router.js'

/**
 * What a command without input tells first waits so long for its output, and that for its end: a short command is then told in one
 * piece. Who can send input is told at once that it may.
 */
const GATHER_START_MS = 40
const GATHER_OUTPUT_MS = 5
const DEFAULT_SIZE: TerminalSize = { cols: 80, rows: 24 }

/** The service `process.Process`. */
export function processService(
  registry: ProcessRegistry,
  identity: Identity,
  locale: SystemLocale,
): ServiceHandlers<typeof Process> {
  return {
    list: (request) => ({
      processes: [...(request.includeEnded ? registry.ended() : []), ...registry.running()].map(processInfo),
    }),
    start: async (request, call, events) => {
      const session = await registry.start(startOptions(request, call, identity, locale))
      const follower = session.follow(0)
      for (const timeoutMs of [request.timeoutMs, call.timeoutMs ?? 0]) if (timeoutMs > 0) session.killAfter(timeoutMs)
      const takesInput = session.isPty || request.stdin !== false
      if (!takesInput) events.gather(GATHER_START_MS)
      await relay(session, follower, call, events, request.withOffsets, takesInput)
      if (session.end?.timedOut && call.timeoutMs !== undefined && !request.timeoutMs)
        throw deadlineExceeded(call.timeoutMs)
    },
    connect: async (request, call, events) => {
      const session = registry.find(request.process)
      const from = request.fromOffset === undefined ? undefined : Number(request.fromOffset)
      await relay(session, session.follow(from), call, events, request.withOffsets || from !== undefined)
    },
    update: (request) => {
      const session = registry.findRunning(request.process)
      if (request.pty?.size !== undefined) session.process.resize(terminalSize(request.pty.size))
      return {}
    },
    streamInput: (requests) => streamInput(registry, requests),
    sendInput: async (request) => {
      await sendInput(registry.findRunning(request.process), request.input)
      return {}
    },
    sendSignal: async (request) => {
      if (request.signal === Signal.UNSPECIFIED || Signal[request.signal] === undefined) {
        throw new AppError('invalid_request', 'A known signal is required.')
      }
      await registry.signal(request.process, request.signal)
      return {}
    },
    closeStdin: async (request) => {
      await registry.findRunning(request.process).process.closeStdin()
      return {}
    },
  }
}

function startOptions(request: StartRequest, call: RpcCall, identity: Identity, locale: SystemLocale) {
  const config = request.process
  if (config === undefined || config.cmd === '') throw new AppError('invalid_request', 'process.cmd is required.')
  const user = identity.userOf(call.headers)
  const { envs, defaultCwd } = identity.values
  const spec: LaunchSpec = {
    cmd: config.cmd,
    args: config.args,
    user,
    env: environmentOf(
      user,
      locale.variables,
      envs,
      request.pty === undefined ? config.envs : { TERM: 'xterm-256color', ...config.envs },
    ),
    cwd: workingDirectory(config.cwd, defaultCwd, user),
    pty: request.pty === undefined ? undefined : terminalSize(request.pty.size),
    stdin: request.stdin ?? true,
  }
  rejectNulBytes([spec.cmd, ...spec.args, ...Object.entries(spec.env).flat()])
  return { config, spec, tag: request.tag, foreground: request.foreground }
}

function rejectNulBytes(texts: readonly string[]): void {
  if (!texts.some((text) => text.includes('\0'))) return
  throw new AppError('invalid_request', 'Commands, arguments and variables cannot contain NUL bytes.')
}

function terminalSize(size: { readonly cols: number; readonly rows: number } | undefined): TerminalSize {
  const { cols, rows } = size ?? DEFAULT_SIZE
  return { cols: clampSize(cols, DEFAULT_SIZE.cols), rows: clampSize(rows, DEFAULT_SIZE.rows) }
}

/** The kernel keeps sizes in 16 bits; 0 means the client does not know. */
function clampSize(value: number, fallback: number): number {
  return value === 0 ? fallback : Math.min(value, 65_535)
}

/** Sends a session's events until it ends or the client is gone; the process lives on. `atOnce`: the first output does not wait. */
async function relay(
  session: Session,
  follower: Follower,
  call: RpcCall,
  events: ProcessEvents,
  withOffsets: boolean,
  atOnce = true,
): Promise<void> {
  let gathers = !atOnce
  events.onClose(() => follower.close())
  const keepaliveMs = keepaliveOf(call)
  const offset = withOffsets ? { offset: BigInt(follower.offset) } : {}
  const start = { pid: session.pid, ...withTag(session.tag), ...offset }
  await events.send({ event: { event: { case: 'start', value: start } } })
  while (!events.isClosed) {
    const item = await follower.next(keepaliveMs)
    if (item.type === 'chunk') {
      if (gathers) events.gather(GATHER_OUTPUT_MS)
      gathers = false
      await sendOutput(events, item.chunk, withOffsets)
    } else if (item.type === 'end') {
      await events.send({ event: { event: { case: 'end', value: endEvent(item.end, item.offset, withOffsets) } } })
      break
    } else if (item.type === 'lost') {
      const value = { from: BigInt(item.from), to: BigInt(item.to) }
      await events.send({ event: { event: { case: 'lost', value } } })
    } else {
      await events.send({ event: { event: { case: 'keepalive', value: {} } } })
    }
  }
  follower.close()
}

function endEvent(end: SessionEnd, offset: number, withOffset: boolean) {
  const { exitCode, exited, status, timedOut, oomKilled } = end
  return {
    exitCode,
    exited,
    status,
    timedOut,
    oomKilled,
    ...(end.error === undefined ? {} : { error: end.error }),
    ...(end.signal === undefined ? {} : { signal: end.signal }),
    ...(withOffset ? { offset: BigInt(offset) } : {}),
  }
}

function withTag(tag: string | undefined): { tag?: string } {
  return tag === undefined ? {} : { tag }
}

function processInfo(session: Session): MessageInitShape<typeof ProcessInfoSchema> {
  return {
    config: session.config,
    pid: session.pid,
    ...withTag(session.tag),
    outputOffset: BigInt(session.log.end),
    running: session.end === undefined,
    pty: session.isPty,
    foreground: session.foreground,
    startedAtMs: BigInt(session.startedAtMs),
  }
}

async function sendInput(session: Session, input: ProcessInput | undefined): Promise<void> {
  if (input?.input.case === undefined) throw new AppError('invalid_request', 'input.stdin or input.pty is required.')
  await session.process.write(input.input.case, input.input.value)
}

async function streamInput(registry: ProcessRegistry, requests: AsyncIterable<StreamInputRequest>): Promise<object> {
  let selector: ProcessSelector | undefined
  for await (const { event } of requests) {
    if (event.case === 'start') selector = event.value.process
    else if (event.case === 'data') await sendInput(registry.findRunning(selector), event.value.input)
  }
  return {}
}

function deadlineExceeded(timeoutMs: number): AppError {
  return new AppError('timeout', `The process was killed: Connect-Timeout-Ms of ${timeoutMs} ms has passed.`)
}
