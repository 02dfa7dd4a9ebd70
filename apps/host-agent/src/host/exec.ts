import type { ChildProcess } from 'node:child_process'
import { AppError, isErrno } from '@wrenn/base'
import { spawnTool } from './spawn-tool.js'

/** Host tools live in sbin, which a service's or a user's PATH often lacks; nothing else of our environment leaks into them. */
export const hostToolEnvironment = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' }

/** How a host command is run. Its environment is fixed, see {@link hostToolEnvironment}. */
export interface RunOptions {
  /** Text for stdin; without it stdin is empty. */
  readonly input?: string
  /** @default 30000 */
  readonly timeoutMs?: number
  /** Ends the command; the call rejects with its reason. */
  readonly signal?: AbortSignal
  /** How much of each of stdout and stderr is kept; more than this on stdout ends it with an error, stderr keeps its end. @default 16 MiB */
  readonly maxOutputBytes?: number
}

/** One that was killed, with what it has started: a sandbox ends a moment after the program that holds it. */
const END_MS = 10_000

/** What a command wrote and how it ended. */
export interface RunResult {
  readonly stdout: string
  /** Its end, when there was more than `maxOutputBytes`. */
  readonly stderr: string
  readonly exitCode: number
}

/** Keeps the last `limit` bytes of a stream, and knows whether there were more. */
class Tail {
  #chunks: Buffer[] = []
  #bytes = 0
  overflown = false

  constructor(private readonly limit: number) {}

  push(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    while (this.#bytes > this.limit) this.#dropOldest()
  }

  #dropOldest(): void {
    const [first] = this.#chunks
    if (!first) return
    const excess = this.#bytes - this.limit
    this.overflown = true
    if (first.length <= excess) this.#chunks.shift()
    else this.#chunks[0] = first.subarray(excess)
    this.#bytes -= Math.min(first.length, excess)
  }

  toString(): string {
    return Buffer.concat(this.#chunks).toString('utf8')
  }
}

function lastLines(text: string, count = 4): string {
  return text.trim().split('\n').slice(-count).join(' / ')
}

/**
 * Runs a host command and gives its output whatever its exit code.
 * @throws AppError `engine_failure` when it is not installed or writes too much, `timeout` after `timeoutMs`; the signal's reason.
 */
export async function runForResult(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const timeoutMs = options.timeoutMs ?? 30_000
  const deadline = AbortSignal.timeout(timeoutMs)
  const signal = options.signal ? AbortSignal.any([options.signal, deadline]) : deadline
  options.signal?.throwIfAborted()
  const child = spawnTool(command, args, {
    env: hostToolEnvironment,
    stdin: 'pipe',
    signal,
    killSignal: 'SIGKILL',
  })
  const stdout = new Tail(options.maxOutputBytes ?? 16 * 2 ** 20)
  const stderr = new Tail(options.maxOutputBytes ?? 16 * 2 ** 20)
  child.stdout.on('data', (chunk: Buffer) => {
    stdout.push(chunk)
    if (!stdout.overflown) return
    // Whatever it has started ends at its next word, too.
    child.kill('SIGKILL')
    child.stdout.destroy()
  })
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
  // A command that exits without reading its input is judged by its exit code, not by the broken pipe.
  child.stdin.on('error', () => {})
  child.stdin.end(options.input ?? '')
  try {
    const exitCode = await exitOf(child)
    if (stdout.overflown) throw new AppError('engine_failure', `\`${command}\` wrote more output than expected.`)
    return { stdout: stdout.toString(), stderr: stderr.toString(), exitCode }
  } catch (error) {
    options.signal?.throwIfAborted()
    if (deadline.aborted) throw new AppError('timeout', `\`${command} ${args.join(' ')}\` took over ${timeoutMs} ms.`)
    if (isErrno(error, 'ENOENT')) {
      throw new AppError(
        'engine_failure',
        `The program \`${command}\` is not installed; \`wrenn doctor\` names the package.`,
      )
    }
    throw error
  }
}

/** Who is told that a command was broken off may remove what it wrote: by then it, and what it has started, is over. */
function exitOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    let brokenOff: { readonly why: Error; readonly patience: NodeJS.Timeout } | undefined
    child.once('error', (why) => {
      if (child.pid === undefined)
        reject(why) // it never began
      else brokenOff ??= { why, patience: setTimeout(() => reject(why), END_MS) }
    })
    child.once('close', (code) => {
      clearTimeout(brokenOff?.patience)
      if (brokenOff === undefined) resolve(code ?? 128)
      else reject(brokenOff.why)
    })
  })
}

/**
 * Runs a host command and gives its stdout.
 * @throws AppError `engine_failure` with the end of its stderr when it exits non-zero, and what `runForResult` throws.
 */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { stdout, stderr, exitCode } = await runForResult(command, args, options)
  if (exitCode === 0) return stdout
  throw new AppError(
    'engine_failure',
    `\`${[command, ...args].join(' ')}\` failed with exit code ${exitCode}: ${lastLines(stderr || stdout)}`,
    { details: { command, exitCode } },
  )
}
