import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import type { ProcessEvent, ProcessSelector } from '@wrenn/protocol/guest'
import { fromHostError, isConnectionLoss } from '../host/errors.js'
import type { HostClient } from '../host/transport.js'

const RECONNECT_MS = 90_000
const RECONNECT_EVERY_MS = 200

type Events = AsyncIterable<{ readonly event?: ProcessEvent | undefined }>
export type SessionEvent = ProcessEvent['event']

export interface StartOptions {
  readonly cmd: string
  readonly args: readonly string[]
  readonly envs: Readonly<Record<string, string>>
  readonly cwd: string | undefined
  readonly user: string | undefined
  /** Found again by it after a broken connection, so it must be unique. */
  readonly tag: string
  readonly stdin: boolean
  /** 0: none. */
  readonly timeoutMs: number
  readonly foreground: boolean
  readonly pty?: { readonly cols: number; readonly rows: number }
}

export function selectTag(tag: string): { selector: { case: 'tag'; value: string } } {
  return { selector: { case: 'tag', value: tag } }
}

/** All digits are a process id, anything else is a tag. */
export function parseSelector(text: string) {
  if (!/^\d+$/.test(text)) return selectTag(text)
  const pid = Number(text)
  if (pid > 0xffff_ffff) throw new AppError('process_not_found', `There is no process ${text}.`)
  return { selector: { case: 'pid' as const, value: pid } }
}

/**
 * Starts a process and yields its events until it ends. When the connection to the host breaks (its agent restarts, say),
 * the session is taken up where it was: nothing is lost and nothing comes twice.
 */
export function startSession(
  client: HostClient,
  capsuleId: string,
  options: StartOptions,
  signal: AbortSignal,
): AsyncGenerator<SessionEvent> {
  const { cmd, args, envs, cwd, pty } = options
  const open = (): Events =>
    client.startProcess(
      {
        capsuleId,
        user: options.user ?? '',
        start: {
          process: { cmd, args: [...args], envs: { ...envs }, ...(cwd === undefined ? {} : { cwd }) },
          tag: options.tag,
          stdin: options.stdin,
          withOffsets: true,
          timeoutMs: Math.ceil(options.timeoutMs),
          foreground: options.foreground,
          ...(pty === undefined ? {} : { pty: { size: pty } }),
        },
      },
      { signal },
    )
  return follow({ open, reopen: reconnect(client, capsuleId, selectTag(options.tag), signal), next: 0, signal })
}

/** Follows a process that runs, from `fromOffset` or from now. */
export function connectSession(
  client: HostClient,
  capsuleId: string,
  process: ReturnType<typeof parseSelector>,
  fromOffset: number | undefined,
  signal: AbortSignal,
): AsyncGenerator<SessionEvent> {
  const reopen = reconnect(client, capsuleId, process, signal)
  return follow({ open: () => reopen(fromOffset), reopen, next: fromOffset, signal })
}

function reconnect(
  client: HostClient,
  capsuleId: string,
  process: Pick<ProcessSelector, 'selector'>,
  signal: AbortSignal,
) {
  return (from: number | undefined): Events =>
    client.connectProcess(
      { capsuleId, connect: { process, ...(from === undefined ? {} : { fromOffset: BigInt(from) }) } },
      { signal },
    )
}

interface FollowOptions {
  readonly open: () => Events
  readonly reopen: (from: number | undefined) => Events
  /** Offset of the byte that comes next, when it is known. */
  readonly next: number | undefined
  readonly signal: AbortSignal
}

async function* follow({ open, reopen, next, signal }: FollowOptions): AsyncGenerator<SessionEvent> {
  let position = next
  let announced = false
  let mayRun = false
  let events = open()
  let lostAt: number | undefined
  for (;;) {
    try {
      for await (const { event } of events) {
        lostAt = undefined
        const part = event?.event
        if (part?.case === 'start' && announced) continue
        if (part?.case === 'start') announced = true
        if (part?.case === 'data') position = endOf(part.value, position)
        if (part?.case !== undefined && part.case !== 'keepalive') yield part
        if (part?.case === 'end') return
      }
      throw new AppError('guest_error', 'The process stream ended before the process did.')
    } catch (error) {
      const failure = fromHostError(error)
      const lost = isConnectionLoss(error)
      // A restarted host agent refuses calls until it has taken its capsules up again.
      if (signal.aborted || !(lost || failure.code === 'host_unavailable')) throw failure
      lostAt ??= performance.now()
      if (performance.now() - lostAt > RECONNECT_MS) throw failure
      await delay(RECONNECT_EVERY_MS, undefined, { signal })
      // A host that refused has started nothing; where the line broke, the process may run already.
      mayRun ||= lost
      events = mayRun || announced ? reopen(position) : open()
    }
  }
}

type Data = Extract<SessionEvent, { case: 'data' }>['value']

function endOf(data: Data, position: number | undefined): number | undefined {
  const length = data.output.value?.length ?? 0
  if (data.offset !== undefined) return Number(data.offset) + length
  return position === undefined ? undefined : position + length
}

export interface ProcessExit {
  readonly exitCode: number
  readonly signal: number | undefined
  readonly timedOut: boolean
  readonly oomKilled: boolean
}

/** Exit code after a timeout, as coreutils' `timeout` has it. */
const TIMEOUT_EXIT_CODE = 124
const SIGNAL_EXIT_BASE = 128

/** The end of a process in the shell's terms: 128 + n for signal n, 124 for a timeout. */
export function exitInfo(end: Extract<SessionEvent, { case: 'end' }>['value']): ProcessExit {
  const { signal, timedOut, oomKilled } = end
  const bySignal = signal === undefined || signal === 0 ? end.exitCode : SIGNAL_EXIT_BASE + signal
  return { exitCode: timedOut ? TIMEOUT_EXIT_CODE : bySignal, signal: signal || undefined, timedOut, oomKilled }
}
