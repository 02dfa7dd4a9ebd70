import { isUtf8 } from 'node:buffer'
import { AppError, randomTag } from '@wrenn/base'
import type { BackgroundResult, ExecInput, ExecResult } from '@wrenn/protocol'
import { Signal } from '@wrenn/protocol/guest'
import { fromHostError } from '../../host/errors.js'
import { startRecorded } from './recorded.js'
import { exitInfo, type ProcessExit, type SessionContext, type StartOptions, selectTag } from './session.js'

const DEFAULT_TIMEOUT_SEC = 30
const STDIN_CHUNK_BYTES = 256 * 1024

/**
 * Runs a command to its end and collects what it wrote, at most `limitBytes` of each stream. After its timeout the whole
 * process tree is killed and the output so far is the answer. When the caller hangs up (`context.signal`) the tree is killed
 * too. The deadline is the guest's: while the capsule sleeps, neither the command nor its deadline comes nearer.
 */
export async function execForeground(
  context: SessionContext,
  input: ExecInput,
  limitBytes: number,
): Promise<ExecResult> {
  const { capsule, signal } = context
  const stdin = stdinBytes(input)
  const options = startOptions(input, stdin !== undefined, true)
  const collector = new Collector(limitBytes)
  const startedAt = performance.now()
  let feeding: Promise<void> | undefined
  let exit: ProcessExit | undefined
  try {
    for await (const event of startRecorded(context, options)) {
      if (event.case === 'start') {
        collector.pid = event.value.pid
        if (stdin !== undefined) feeding = feed(context, options.tag, stdin)
      } else if (event.case === 'data') collector.add(event.value.output)
      else if (event.case === 'end') exit = exitInfo(event.value)
    }
    await feeding
  } catch (error) {
    if (signal.aborted) void killTree(context, options.tag)
    throw fromHostError(error)
  }
  if (exit === undefined) throw new AppError('guest_error', 'The process ended without saying how.')
  return {
    sandbox_id: capsule.id,
    capsule_id: capsule.id,
    cmd: input.cmd,
    pid: collector.pid,
    ...collector.result(),
    exit_code: exit.exitCode,
    duration_ms: Math.round(performance.now() - startedAt),
    timed_out: exit.timedOut,
    ...(exit.signal === undefined ? {} : { signal: exit.signal }),
    ...(exit.oomKilled ? { oom_killed: true } : {}),
    ...hintFor(exit, collector.truncated, options.timeoutMs),
  }
}

function hintFor(exit: ProcessExit, truncated: boolean, timeoutMs: number): { hint?: string } {
  if (truncated) return { hint: 'There was more output than an answer holds; use exec/stream or write to a file.' }
  if (exit.timedOut) return { hint: `Killed after timeout_sec (${timeoutMs / 1000}); raise it, or use background.` }
  return {}
}

/** Starts a command and leaves it running. */
export async function execBackground(
  context: Omit<SessionContext, 'signal'>,
  input: ExecInput,
): Promise<BackgroundResult> {
  const { id } = context.capsule
  const stdin = stdinBytes(input)
  const options = startOptions(input, stdin !== undefined, false)
  const started = new AbortController()
  const whileStarting = { ...context, signal: started.signal }
  try {
    for await (const event of startRecorded(whileStarting, options)) {
      if (event.case !== 'start') continue
      if (stdin !== undefined) await feed(whileStarting, options.tag, stdin)
      return { sandbox_id: id, capsule_id: id, cmd: input.cmd, pid: event.value.pid, tag: options.tag }
    }
  } finally {
    started.abort()
  }
  throw new AppError('guest_error', 'The process did not start.')
}

function startOptions(input: ExecInput, stdin: boolean, foreground: boolean): StartOptions {
  const timeoutSec = input.timeout_sec ?? (foreground ? DEFAULT_TIMEOUT_SEC : 0)
  return {
    cmd: input.cmd,
    args: input.args,
    envs: input.envs,
    cwd: input.cwd,
    user: input.user,
    tag: input.tag ?? randomTag('proc'),
    isNewTag: input.tag === undefined,
    stdin,
    timeoutMs: timeoutSec * 1000,
    foreground,
  }
}

function stdinBytes(input: ExecInput): Buffer | undefined {
  if (input.stdin === undefined) return undefined
  return Buffer.from(input.stdin, input.stdin_encoding === 'base64' ? 'base64' : 'utf8')
}

/** Input goes on where a pause interrupted it. */
async function feed({ client, wake, capsule, signal }: SessionContext, tag: string, bytes: Buffer): Promise<void> {
  const options = { signal, asleep: 'wait' } as const
  try {
    for (let at = 0; at < bytes.length; at += STDIN_CHUNK_BYTES) {
      const value = bytes.subarray(at, at + STDIN_CHUNK_BYTES)
      const input = { process: selectTag(tag), input: { input: { case: 'stdin', value } } } as const
      await wake.attempt(capsule, () => client.sendInput({ capsuleId: capsule.id, input }), options)
    }
    await wake.attempt(capsule, () => client.closeStdin({ capsuleId: capsule.id, process: selectTag(tag) }), options)
  } catch {
    // A process may end without reading its input; how it ended, or that the guest is gone, its own stream tells.
  }
}

/** In a capsule that sleeps the tree dies as soon as it runs again; nobody wakes it for that. */
async function killTree({ client, wake, capsule }: SessionContext, tag: string): Promise<void> {
  const signal = { process: selectTag(tag), signal: Signal.SIGKILL }
  const kill = () => client.signalProcess({ capsuleId: capsule.id, signal })
  // It may have ended by itself in the meantime.
  await wake.attempt(capsule, kill, { asleep: 'wait' }).catch(() => {})
}

type Output = { readonly case: 'stdout' | 'stderr' | 'pty' | undefined; readonly value?: Uint8Array | undefined }

/** Keeps the first `limitBytes` of each stream. */
class Collector {
  readonly #limit: number
  readonly #streams = { stdout: new Bounded(), stderr: new Bounded() }
  pid = 0

  constructor(limitBytes: number) {
    this.#limit = limitBytes
  }

  get truncated(): boolean {
    return this.#streams.stdout.truncated || this.#streams.stderr.truncated
  }

  add(output: Output): void {
    if (output.value === undefined) return
    this.#streams[output.case === 'stderr' ? 'stderr' : 'stdout'].add(output.value, this.#limit)
  }

  result(): Pick<ExecResult, 'stdout' | 'stderr' | 'encoding' | 'truncated'> {
    const [stdout, stderr] = [this.#streams.stdout.bytes(), this.#streams.stderr.bytes()]
    const encoding = isUtf8(stdout) && isUtf8(stderr) ? 'utf-8' : 'base64'
    const as = encoding === 'utf-8' ? 'utf8' : 'base64'
    return { stdout: stdout.toString(as), stderr: stderr.toString(as), encoding, truncated: this.truncated }
  }
}

class Bounded {
  readonly #chunks: Uint8Array[] = []
  #size = 0
  truncated = false

  add(chunk: Uint8Array, limit: number): void {
    const room = limit - this.#size
    const kept = chunk.length > room ? chunk.subarray(0, room) : chunk
    if (kept.length < chunk.length) this.truncated = true
    if (kept.length === 0) return
    this.#chunks.push(kept)
    this.#size += kept.length
  }

  /** All of it; a cut never leaves half a character behind. */
  bytes(): Buffer {
    const all = Buffer.concat(this.#chunks)
    if (!this.truncated || isUtf8(all)) return all
    for (let cut = 1; cut <= 3; cut++) {
      const shorter = all.subarray(0, all.length - cut)
      if (isUtf8(shorter)) return shorter
    }
    return all
  }
}
