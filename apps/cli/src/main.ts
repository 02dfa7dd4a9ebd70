import { isErrno } from '@wrenn/base'
import { CommanderError } from 'commander'
import { report } from './context.js'
import { Output } from './output.js'
import { createProgram } from './program.js'
import { rawArguments } from './raw-arguments.js'

const USAGE_ERROR = 2

/** `wrenn ls | head`: a reader that had enough is no error. Commands that hold something listen themselves and clean up. */
process.stdout.on('error', (error) => {
  if (!isErrno(error, 'EPIPE')) throw error
  if (process.stdout.listenerCount('error') === 1) process.exit(0)
})

async function main(): Promise<number> {
  try {
    await createProgram().parseAsync(rawArguments(process.argv.slice(2)), { from: 'user' })
    return 0
  } catch (error) {
    // Help and version are thrown too, with code 0; usage errors have been printed.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE_ERROR
    const json = process.argv.slice(2).includes('--json')
    return report(error, new Output({ json, color: process.stderr.isTTY === true }))
  }
}

process.exit(await main())
