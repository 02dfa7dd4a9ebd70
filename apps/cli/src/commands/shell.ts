import type { PtyOptions } from '@wrenn/sdk'
import type { Command } from 'commander'
import { findCapsule } from '../capsule-view.js'
import { connectionNotice } from '../connection-notice.js'
import { type CommonOptions, type Context, contextOf, ExitCode } from '../context.js'
import { joinTerminal, terminalSize } from '../terminal/shell.js'
import { collectPair } from '../units.js'

interface ShellOptions extends CommonOptions {
  readonly attach?: string
  readonly user?: string
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
}

/** bash where there is one, as a login shell so that the profile is read. */
const LOGIN_SHELL = ['/bin/sh', '-c', 'exec "$(command -v bash || command -v sh)" -l'] as const

const help = `
Examples:
  wrenn shell cl-…
  wrenn shell cl-… -- python3
  wrenn shell cl-… --attach pty-1a2b3c4d      back to a terminal you left

Type Enter ~ . to detach: the shell keeps running, and its tag to come back is printed. When the connection drops, the
terminal comes back by itself and shows what it missed; when the capsule is paused, it waits for the resume.`

/** `wrenn shell`, and `wrenn capsule shell`: joins the person's terminal with one in a capsule. */
export function addShell(parent: Command): void {
  const command = parent
    .command('shell <capsule> [command...]')
    .description('open a terminal in a capsule')
    .option('--attach <tag>', 'come back to a terminal that is open')
    .option('--user <name>', 'user inside the capsule')
    .option('--cwd <path>', 'working directory')
    .option('-e, --env <key=value>', 'environment variable, may be repeated', collectPair)
    .addHelpText('after', help)
  // Our options may follow the capsule, as the hint of a detached terminal has them; a program's own come after `--`.
  command.action(async (id: string, words: string[], options: ShellOptions) => shell(id, words, options))
}

async function shell(id: string, words: readonly string[], options: ShellOptions): Promise<void> {
  const context = contextOf(options)
  const capsule = await findCapsule(context, id)
  const follow = { onConnection: connectionNotice(context, capsule.info, { raw: process.stdin.isTTY === true }) }
  const pty = options.attach
    ? await capsule.attachPty(options.attach, { ...follow, fromOffset: 0 })
    : await capsule.pty({ ...follow, ...ptyOptions(words, options, context) })
  if (options.attach) {
    const { cols, rows } = terminalSize()
    await pty.resize(cols, rows)
  }
  const { exitCode, detached } = await joinTerminal(pty).catch((error: unknown) => {
    if (process.stdin.isTTY) context.output.note('') // Away from the prompt that the terminal ended with.
    throw error
  })
  if (detached) context.output.note(`\nDetached. Come back with: wrenn shell ${id} --attach ${pty.tag}`)
  throw new ExitCode(exitCode)
}

function ptyOptions(words: readonly string[], options: ShellOptions, { config }: Context): PtyOptions {
  const [program, ...args] = words
  return {
    ...terminalSize(),
    command: program === undefined ? LOGIN_SHELL : [program, ...args],
    envs: { TERM: config.term, ...options.env },
    ...(options.user ? { user: options.user } : {}),
    ...(options.cwd ? { cwd: options.cwd } : {}),
  }
}
