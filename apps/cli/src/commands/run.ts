import {
  type Capsule,
  type CreateOptions,
  type ExecOptions,
  type ProcessEvent,
  type ProcessExit,
  type ProcessHandle,
  WrennError,
} from '@wrenn/sdk'
import type { Command } from 'commander'
import { connect } from '../connection.js'
import { connectionNotice } from '../connection-notice.js'
import { type CommonOptions, type Context, contextOf, ExitCode, withJson, withProgram } from '../context.js'
import { Interrupt } from '../interrupt.js'
import { writeFully } from '../output.js'
import { collect, collectPair, parseDurationMs, parseInteger, parseMib, showMs } from '../units.js'
import { type EgressOptions, egressOption, withEgress } from './egress.js'

/** What commander makes of {@link withShape}: sizes are MiB. */
export interface ShapeOptions extends EgressOptions {
  readonly template?: string
  readonly vcpus?: number
  readonly memory?: number
  readonly disk?: number
  readonly name?: string
  readonly label?: Readonly<Record<string, string>>
  readonly hostTag?: readonly string[]
}
/** What commander makes of {@link withIdleRules}: `idleTimeout` is milliseconds, 0 never. */
export interface IdleOptions {
  readonly idleTimeout?: number
  readonly autoResume?: boolean
}
/** What commander makes of {@link withCommand}: `timeout` is milliseconds. */
export interface CommandOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly user?: string
  readonly timeout?: number
}
type RunOptions = CommonOptions & ShapeOptions & CommandOptions & { readonly keep?: boolean }

const TIMED_OUT = 124
const UNKNOWN_COMMAND = 127

/** Options of commands that create a capsule; read them by {@link createOptions}. */
export function withShape(command: Command): Command {
  return withEgress(command)
    .option('--template <name>', 'template to start from (default: minimal)')
    .option('--vcpus <n>', 'virtual CPUs (default: what the template has)', parseInteger)
    .option(
      '--memory <size>',
      'memory: 512 or 512m for MiB, 2g for GiB, at least 128 (default: what the template has)',
      parseMib,
    )
    .option('--disk <size>', 'writable space: 512 or 512m for MiB, 2g for GiB', parseMib)
    .option('--name <name>', 'a name for people')
    .option('--label <key=value>', 'label, may be repeated', collectPair)
    .option('--host-tag <tag>', 'only on a host that has this tag, may be repeated', collect)
}

/**
 * Options of when a capsule sleeps and wakes; read them by {@link idleOptions}. `--timeout` is another name of
 * `--idle-timeout`, so they do not go together with {@link withCommand}.
 */
export function withIdleRules(command: Command): Command {
  return command
    .option(
      '--timeout, --idle-timeout <time>',
      'pause it after this time without activity (5m, 1h); 0 is never',
      parseDurationMs,
    )
    .option('--auto-resume', 'wake it when it is used while paused (default when creating)')
    .option('--no-auto-resume', 'wake it only with `wrenn capsule resume`')
}

/** Options of commands that run a program; read them by {@link processOptions}. */
export function withCommand(command: Command): Command {
  return command
    .option('-e, --env <key=value>', 'environment variable, may be repeated', collectPair)
    .option('--cwd <path>', 'working directory')
    .option('--user <name>', 'user inside the capsule')
    .option('--timeout <time>', 'kill the command after this time (30, 5m); exit code 124', parseDurationMs)
}

/** What the SDK takes; an option that was not given is left out, so that the platform's default holds. */
export async function createOptions(options: ShapeOptions): Promise<CreateOptions> {
  const egress = await egressOption(options)
  return {
    ...(options.template ? { template: options.template } : {}),
    ...(options.vcpus !== undefined ? { vcpus: options.vcpus } : {}),
    ...(options.memory !== undefined ? { memoryMib: options.memory } : {}),
    ...(options.disk !== undefined ? { diskSizeMib: options.disk } : {}),
    ...(options.name ? { name: options.name } : {}),
    ...(options.label ? { labels: options.label } : {}),
    ...(options.hostTag ? { hostTags: options.hostTag } : {}),
    ...(egress ? { egress } : {}),
  }
}

/** What the SDK takes; as with {@link createOptions}, only what was given. */
export function idleOptions(options: IdleOptions): { idleTimeoutMs?: number; autoResume?: boolean } {
  return {
    ...(options.idleTimeout === undefined ? {} : { idleTimeoutMs: options.idleTimeout }),
    ...(options.autoResume === undefined ? {} : { autoResume: options.autoResume }),
  }
}

const help = `
Examples:
  wrenn run -- uname -a
  wrenn run --memory 1g --timeout 30 -- python3 -c 'print(6 * 7)'
  tar c . | wrenn run -- sh -c 'tar x && make test'

The exit code is the command's: 124 after --timeout, 127 for an unknown command, 128 + n after signal n.
With --json every line of stdout is one event.`

/**
 * `wrenn run -- …`: a capsule for one command, destroyed after it, also on ^C, unless `--keep`. Exits with the command's own
 * code; 124 after `--timeout`.
 */
export function addRun(program: Command): void {
  const command = program
    .command('run')
    .description('run one command in a new capsule, and destroy the capsule afterwards')
    .argument('<command...>', 'program and arguments, after --')
    .option('--keep', 'leave the capsule running, and print its id on stderr')
    .addHelpText('after', help)
  withProgram(withJson(withCommand(withShape(command)))).action(async (words: string[], options: RunOptions) =>
    run(words, options),
  )
}

async function run(words: readonly string[], options: RunOptions): Promise<void> {
  const context = contextOf(options)
  const { output } = context
  using interrupt = new Interrupt()
  const wrenn = await connect(context.config)
  const progress = output.spinner('creating a capsule')
  let capsule: Capsule
  try {
    capsule = await wrenn.capsules.create({ ...(await createOptions(options)), signal: interrupt.signal })
  } catch (error) {
    if (interrupt.exitCode !== undefined) throw new ExitCode(interrupt.exitCode)
    throw error
  } finally {
    progress.done()
  }
  try {
    const exitCode = await runCommand(context, capsule, words, options, interrupt)
    throw new ExitCode(interrupt.exitCode ?? exitCode)
  } finally {
    if (options.keep) output.note(`Kept ${capsule.id}`)
    else await capsule.destroy()
  }
}

/** Runs `words` with our standard streams as its own. @returns the exit code for us. */
export async function runCommand(
  context: Context,
  capsule: Capsule,
  words: readonly string[],
  options: CommandOptions & CommonOptions,
  interrupt: Interrupt,
): Promise<number> {
  const [program = '', ...args] = words
  const hasInput = process.stdin.isTTY !== true
  try {
    await using command = await capsule.stream([program, ...args], {
      stdin: hasInput,
      signal: interrupt.signal,
      onConnection: connectionNotice(context, capsule.info),
      ...processOptions(options),
      ...(options.timeout ? { timeoutMs: options.timeout } : {}),
    })
    return await follow(context, command, hasInput, options)
  } catch (error) {
    if (interrupt.exitCode !== undefined) return interrupt.exitCode
    return unknownCommand(context, error)
  }
}

/** What the SDK takes; as with {@link createOptions}, only what was given. */
export function processOptions(options: CommandOptions): Pick<ExecOptions, 'envs' | 'cwd' | 'user'> {
  return {
    ...(options.env ? { envs: options.env } : {}),
    ...(options.cwd ? { cwd: options.cwd } : {}),
    ...(options.user ? { user: options.user } : {}),
  }
}

/** The exit code of a command that is not there; any other error is thrown on. */
export function unknownCommand({ output }: Context, error: unknown): number {
  if (!isUnknownCommand(error)) throw error
  output.error(error.message, error.code, undefined)
  return UNKNOWN_COMMAND
}

function isUnknownCommand(error: unknown): error is WrennError {
  return error instanceof WrennError && error.code === 'file_not_found'
}

async function follow(
  { output }: Context,
  command: ProcessHandle,
  hasInput: boolean,
  options: CommandOptions & CommonOptions,
): Promise<number> {
  const input = hasInput ? pumpInput(command) : undefined
  // It may fail long before anyone waits for it; the loop below fails then too, or the command no longer cares.
  input?.catch(() => {})
  try {
    for await (const event of command) {
      if (options.json) output.result(jsonEvent(event), () => '')
      else if (event.type === 'stdout') await writeFully(process.stdout, event.data)
      else if (event.type === 'stderr') await writeFully(process.stderr, event.data)
      else if (event.type === 'lost') output.warn(`${event.to - event.from} bytes of output were lost.`)
      if (event.type === 'exit') return exitCodeOf(output, event, options)
    }
  } finally {
    process.stdin.destroy()
  }
  return 1
}

/** Tells why a command was killed. @returns the exit code for us */
export function exitCodeOf(
  output: Context['output'],
  exit: Pick<ProcessExit, 'exitCode' | 'timedOut' | 'oomKilled'>,
  options: CommandOptions,
): number {
  if (exit.timedOut) {
    output.note(`The command was killed after ${showMs(options.timeout ?? 0)} (--timeout).`)
    return TIMED_OUT
  }
  if (exit.oomKilled) output.note('The command was killed because the capsule ran out of memory (--memory).')
  return exit.exitCode
}

async function pumpInput(command: ProcessHandle): Promise<void> {
  for await (const chunk of process.stdin) await command.write(chunk)
  await command.closeStdin()
}

function jsonEvent(event: ProcessEvent): object {
  if (event.type === 'lost') return event
  if (event.type === 'exit') {
    return {
      type: 'exit',
      exit_code: event.exitCode,
      signal: event.signal,
      timed_out: event.timedOut,
      oom_killed: event.oomKilled,
    }
  }
  return {
    type: event.type,
    data: Buffer.from(event.data).toString('base64'),
    encoding: 'base64',
    offset: event.offset,
  }
}
