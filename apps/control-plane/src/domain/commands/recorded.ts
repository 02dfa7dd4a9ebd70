import { fromHostError } from '../../host/errors.js'
import type { RecordAccess } from '../audit/index.js'
import { exitInfo, type SessionContext, type SessionEvent, type StartOptions, startSession } from './session.js'

/** Of a command line; entries hold no more of it. */
const MAX_COMMAND_LENGTH = 4096

/**
 * As {@link startSession}, and where the context records, notes the command when it is begun and when it ends, or when whoever followed it has
 * left. Its environment and what it says are in no entry.
 */
export function startRecorded(context: SessionContext, options: StartOptions): AsyncGenerator<SessionEvent> {
  const events = startSession(context, options)
  return context.record === undefined ? events : recorded(events, options, context.record, context.signal)
}

async function* recorded(
  events: AsyncGenerator<SessionEvent>,
  { cmd, args, user, pty }: StartOptions,
  record: RecordAccess,
  left: AbortSignal,
): AsyncGenerator<SessionEvent> {
  const action = pty === undefined ? 'capsule.exec' : 'capsule.open_terminal'
  const command = commandLine(cmd, args)
  const startedAt = performance.now()
  let bytes = 0
  let isOver = false
  const over = (outcome: 'success' | 'failure', details: Parameters<RecordAccess>[2]): void => {
    isOver = true
    const durationMs = Math.round(performance.now() - startedAt)
    record(action, outcome, { command, duration_ms: durationMs, output_bytes: bytes, ...details })
  }
  record(action, 'accepted', { command, user: user === '' ? undefined : user })
  try {
    for await (const event of events) {
      if (event.case === 'data') bytes += event.value.output.value?.length ?? 0
      if (event.case === 'end') over('success', endDetails(event.value))
      yield event
    }
  } catch (error) {
    if (!left.aborted) over('failure', { error: fromHostError(error).code })
    throw error
  } finally {
    // In the background, or nobody waits any more: how it ends is not known here.
    if (!isOver) over('success', { detached: 'true' })
  }
}

/** What an entry says of the end of a process. */
export function endDetails(end: Parameters<typeof exitInfo>[0]): Record<string, string | number | undefined> {
  const { exitCode, signal, timedOut, oomKilled } = exitInfo(end)
  return {
    exit_code: exitCode,
    signal,
    timed_out: timedOut ? 'true' : undefined,
    oom_killed: oomKilled ? 'true' : undefined,
  }
}

/** As a JSON array, which says where each argument ends; no more of it than an entry holds. */
export function commandLine(cmd: string, args: readonly string[]): string {
  const parts: string[] = []
  let length = 0
  for (const part of [cmd, ...args]) {
    if (length > MAX_COMMAND_LENGTH) break
    parts.push(part.slice(0, MAX_COMMAND_LENGTH + 1))
    length += part.length + 3
  }
  return JSON.stringify(parts)
}
