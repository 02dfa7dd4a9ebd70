import type { Capsule, ExecResult } from '@wrenn/sdk'
import type { CommonOptions, Context } from '../context.js'
import type { Interrupt } from '../interrupt.js'
import { writeFully } from '../output.js'
import { type CommandOptions, exitCodeOf, processOptions, unknownCommand } from './run.js'

const INPUT_NOTE_MS = 2_000

/** Runs `words` all or nothing. Its output comes at its end, when it is known whether it counts. @returns the exit code for us */
export async function runAtomic(
  context: Context,
  capsule: Capsule,
  words: readonly string[],
  options: CommandOptions & CommonOptions,
  interrupt: Interrupt,
): Promise<number> {
  const [program = '', ...args] = words
  const stdin = await readInput(context)
  try {
    const result = await capsule.exec([program, ...args], {
      ...processOptions(options),
      atomic: true,
      timeoutMs: options.timeout ?? 0,
      signal: interrupt.signal,
      ...(stdin === undefined ? {} : { stdin }),
    })
    await show(context, result)
    return exitCodeOf(context.output, result, options)
  } catch (error) {
    if (interrupt.exitCode !== undefined) return interrupt.exitCode
    return unknownCommand(context, error)
  }
}

/** All of it, because the command starts only when its input is there. */
async function readInput({ output }: Context): Promise<Uint8Array | undefined> {
  if (process.stdin.isTTY) return undefined
  const note = setTimeout(() => output.note('Reading the input of the command until it ends…'), INPUT_NOTE_MS)
  try {
    const chunks: Buffer[] = []
    for await (const chunk of process.stdin) chunks.push(chunk)
    const all = Buffer.concat(chunks)
    return all.length > 0 ? all : undefined
  } finally {
    clearTimeout(note)
  }
}

async function show({ output }: Context, result: ExecResult): Promise<void> {
  if (output.json) return showEvents(output, result)
  await writeFully(process.stdout, result.stdoutBytes)
  await writeFully(process.stderr, result.stderrBytes)
  if (result.truncated) output.warn('There was more output than an answer holds.')
  if (result.rolledBack) output.note('The command failed; the capsule is as it was before it.')
}

/** The same events as without `--atomic`. */
function showEvents(output: Context['output'], result: ExecResult): void {
  for (const [type, bytes] of [
    ['stdout', result.stdoutBytes],
    ['stderr', result.stderrBytes],
  ] as const) {
    if (bytes.length === 0) continue
    const data = Buffer.from(bytes).toString('base64')
    output.result({ type, data, encoding: 'base64' }, () => '')
  }
  const { exitCode, signal, timedOut, oomKilled, rolledBack } = result
  const exit = { exit_code: exitCode, signal, timed_out: timedOut, oom_killed: oomKilled, rolled_back: rolledBack }
  output.result({ type: 'exit', ...exit }, () => '')
}
