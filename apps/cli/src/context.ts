import { AppError, firstFailure } from '@wrenn/base'
import { WrennError } from '@wrenn/sdk'
import type { Command } from 'commander'
import { type CliConfig, readConfig } from './config.js'
import { Output } from './output.js'

/** What every command has: settings, and the only way to say something. */
export interface Context {
  readonly config: CliConfig
  readonly output: Output
}

/** What commander makes of {@link withJson} and {@link withDir}. */
export interface CommonOptions {
  readonly json?: boolean
  readonly dir?: string
}

/** Ends the process with this code and says nothing: the command's own output said it. */
export class ExitCode extends Error {
  constructor(readonly exitCode: number) {
    super(`exit ${exitCode}`)
  }
}

/** For commands with a result. The JSON is a contract: fields are added, never renamed. */
export function withJson(command: Command): Command {
  return command.option('--json', 'print the result as JSON; nothing else goes to stdout')
}

/** For commands about the platform of this machine. */
export function withDir(command: Command): Command {
  return command.option('--dir <path>', "the platform's directory (default: WRENN_DIR or /var/lib/wrenn)")
}

/** Reads the environment; `--dir` wins over WRENN_DIR. @throws AppError `invalid_config` */
export function contextOf(options: CommonOptions): Context {
  const config = readConfig()
  const output = new Output({ json: options.json ?? false, color: config.color })
  return { config: options.dir ? { ...config, dir: options.dir } : config, output }
}

/**
 * For commands that take a program and its arguments. With `--` our options may stand anywhere before it; without, ours end
 * at the first word, so that `exec cl-… ls -l` works too.
 */
export function withProgram(command: Command): Command {
  return command.passThroughOptions(!process.argv.includes('--'))
}

/** Next steps as commands, where the API's hint names a route. */
const commandHints: Readonly<Record<string, string | undefined>> = {
  unauthorized:
    'Log in with `wrenn login`, or set WRENN_API_KEY, or WRENN_DIR to the directory of the platform: its first key is in the file api-key there.',
  connection_failed: 'Start a platform with `npm start` and wait until it is ready, or set WRENN_API_URL.',
  host_unavailable: 'A platform that is starting says when it is ready; `wrenn doctor` checks this machine.',
  login_expired: 'Run `wrenn login` again.',
  database_unavailable: 'Try again in a moment; when no `wrenn up` runs here any more, start it with `npm start`.',
  rolled_back: 'Start it again: `wrenn shell` or `wrenn capsule exec`.',
  capsule_not_found: 'List them with `wrenn capsule ls --all`.',
  channel_not_found: 'List them with `wrenn channel ls`.',
  delivery_not_found: '`wrenn channel log` has those that are kept.',
  host_not_found: 'List them with `wrenn host ls`.',
  user_not_found: 'List them with `wrenn user ls`.',
  api_key_not_found: 'List them with `wrenn key ls`.',
  checkpoint_not_found: 'List them with `wrenn capsule checkpoint ls`.',
  process_not_found: 'List them with `wrenn capsule ps`; `wrenn capsule logs` also knows those that have ended.',
  upload_interrupted: 'Copy it again; a paused capsule must be resumed first, or have --auto-resume.',
  template_not_found: 'List templates with `wrenn snapshot ls --all`.',
  guest_died:
    'Where the capsule is in error, `wrenn capsule info` says what ended it; `resume` or `rollback` lets it run again.',
}

const wakeHint =
  '`wrenn capsule resume <capsule>` wakes it; `wrenn capsule update <capsule> --auto-resume` lets it wake when it is used.'

/** The next step for a person: a command where there is one, else what the API says. */
export function hintOf({ code, details, hint }: WrennError): string | undefined {
  // With `legal` it is the command that does not fit, and the message lists those that do.
  const isAsleep =
    code === 'invalid_state' &&
    (details?.state === 'paused' || details?.state === 'hibernated') &&
    details.legal === undefined
  return isAsleep ? wakeHint : (commandHints[code] ?? hint)
}

/** Prints what went wrong, and gives the exit code for it. */
export function report(failure: unknown, output: Output): number {
  const thrown = firstFailure(failure)
  if (thrown instanceof ExitCode) return thrown.exitCode
  if (thrown instanceof WrennError) {
    output.error(thrown.message, thrown.code, hintOf(thrown))
    return 1
  }
  const error = AppError.from(thrown)
  // A bug of ours: without its own words nobody could report it.
  const inner = error.code === 'internal' && error.cause instanceof Error ? ` ${error.cause.stack ?? ''}` : ''
  output.error(`${error.message}${inner}`, error.code, undefined)
  return 1
}
