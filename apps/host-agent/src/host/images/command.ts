import { AppError, isErrno, stopChild } from '@wrenn/base'
import { spawnTool } from '../spawn-tool.js'

interface CommandOptions {
  readonly signal?: AbortSignal | undefined
  /** @default 120000 */
  readonly timeoutMs?: number
  readonly cwd?: string
  /** Added to the inherited environment; messages are always in English. */
  readonly env?: Readonly<Record<string, string>>
  /** Debian package that brings the tool, when its name is another. */
  readonly debianPackage?: string
}

interface CommandResult {
  readonly stdout: Buffer
  readonly stderr: string
}

const STDERR_KEPT_BYTES = 64 * 1024
const STDERR_LINES_SHOWN = 8
const STOP_LADDER = [
  { signal: 'SIGTERM', graceMs: 5_000 },
  { signal: 'SIGKILL', graceMs: 5_000 },
] as const

/**
 * Runs one command to its end.
 * @throws AppError `invalid_config` naming the Debian package when the tool is missing; `image_build_failed` with the last
 * lines of its stderr when it fails; `timeout`; the signal's reason when aborted (the command is gone by then).
 */
export async function runCommand(
  tool: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  options.signal?.throwIfAborted()
  const timeoutMs = options.timeoutMs ?? 120_000
  const deadline = AbortSignal.timeout(timeoutMs)
  const stop = options.signal ? AbortSignal.any([options.signal, deadline]) : deadline
  const result = await runUntil(stop, tool, args, options)
  options.signal?.throwIfAborted()
  if (deadline.aborted && result.code !== 0) {
    throw new AppError('timeout', `${tool} did not finish within ${timeoutMs} ms.`, { details: { tool } })
  }
  if (result.code !== 0) throw commandFailed(tool, result.code, result.stderr)
  return { stdout: result.stdout, stderr: result.stderr }
}

interface Ended extends CommandResult {
  readonly code: number | null
}

async function runUntil(
  stop: AbortSignal,
  tool: string,
  args: readonly string[],
  options: CommandOptions,
): Promise<Ended> {
  const child = spawnTool(tool, args, {
    cwd: options.cwd,
    env: commandEnvironment(options.env),
    stdin: 'ignore',
  })
  const stdout: Buffer[] = []
  let stderr = ''
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk.toString('utf8')).slice(-STDERR_KEPT_BYTES)
  })
  let stopping: Promise<unknown> = Promise.resolve()
  const end = (): void => {
    stopping = stopChild(child, STOP_LADDER)
  }
  stop.addEventListener('abort', end, { once: true })
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', (error) => reject(startFailed(tool, options.debianPackage ?? tool, error)))
      child.once('close', resolve)
    })
    return { code, stdout: Buffer.concat(stdout), stderr }
  } finally {
    stop.removeEventListener('abort', end)
    await stopping
  }
}

function commandEnvironment(extra: Readonly<Record<string, string>> | undefined): NodeJS.ProcessEnv {
  // biome-ignore lint/style/noProcessEnv: passed on to the tools (PATH, proxies), never read for configuration
  const ours = Object.entries(process.env)
  // Our own settings have secrets (the object store's key), and tools read images of strangers.
  const theirs = Object.fromEntries(ours.filter(([name]) => !name.startsWith('WRENN_')))
  return { ...theirs, LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive', ...extra }
}

function startFailed(tool: string, debianPackage: string, error: Error): AppError {
  if (isErrno(error, 'ENOENT')) return missingPackage(tool, debianPackage)
  return new AppError('image_build_failed', `${tool} could not be started: ${error.message}.`, { cause: error })
}

/** The error for something that Debian brings and this machine lacks. */
export function missingPackage(what: string, debianPackage: string): AppError {
  return new AppError(
    'invalid_config',
    `${what} is missing on this machine. Install it with: apt-get install ${debianPackage}`,
    { details: { debianPackage } },
  )
}

function commandFailed(tool: string, code: number | null, stderr: string): AppError {
  const lines = withoutHosts(stderr).trim().split('\n').slice(-STDERR_LINES_SHOWN).join('\n')
  const how = code === null ? 'was killed' : `failed with status ${code}`
  return new AppError('image_build_failed', `${tool} ${how}: ${lines || 'it said nothing'}`, { details: { tool } })
}

/** Package mirrors may carry credentials in their address, and errors travel to clients. */
export function withoutHosts(text: string): string {
  return text.replace(/\b(https?|ftp|file):\/\/[^\s/'"]+/g, '$1://…')
}
