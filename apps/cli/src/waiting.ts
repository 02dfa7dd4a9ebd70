import type { LifecycleOptions } from '@wrenn/sdk'
import type { Command } from 'commander'
import { type Context, ExitCode } from './context.js'
import { Interrupt } from './interrupt.js'
import { parseDurationMs } from './units.js'

/** What commander makes of {@link withWait}. */
export interface WaitOptions {
  readonly wait?: number
}

/** For commands whose work goes on when they give up: how long the end is waited for. */
export function withWait(command: Command): Command {
  return command.option(
    '--wait <time>',
    'longest wait for the end (default: 2m); the work goes on after it',
    parseDurationMs,
  )
}

/** Does something that the platform carries to its end, whether or not we wait for it. */
export async function waiting<T>(
  { output }: Context,
  what: string,
  options: WaitOptions,
  work: (options: LifecycleOptions) => Promise<T>,
): Promise<T> {
  using interrupt = new Interrupt()
  const progress = output.spinner(what)
  try {
    return await work({
      signal: interrupt.signal,
      ...(options.wait === undefined ? {} : { timeoutMs: options.wait }),
    })
  } catch (error) {
    if (interrupt.exitCode === undefined) throw error
    progress.done()
    output.note('Not waited for; what was asked for may go on.')
    throw new ExitCode(interrupt.exitCode)
  } finally {
    progress.done()
  }
}
