import { AppError, errorText } from '@wrenn/base'
import { startTracing } from '@wrenn/tracing'
import pino from 'pino'
import { runCommandLine } from './commands.js'
import { readConfig } from './config.js'
import { serve } from './serve.js'
import { version } from './version.js'

/** EX_CONFIG of sysexits.h: starting again without a change cannot help. */
const EXIT_CONFIG = 78

/** Values of these keys never reach the log. */
const SECRETS = ['secret', '*.secret', 'envs', '*.envs', 'apiKey', '*.apiKey']

async function main(): Promise<void> {
  const config = readConfig()
  const options = {
    level: config.logLevel,
    base: { app: 'host-agent' },
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: SECRETS,
  }
  const [command, ...args] = process.argv.slice(2)
  if (command !== undefined && command !== 'serve') {
    // Its answer is on stdout, as JSON lines.
    process.exitCode = await runCommandLine(command, args, config, pino(options, pino.destination(2)))
    return
  }
  const logger = pino(options)
  if (process.getuid?.() !== 0) throw new AppError('invalid_config', 'The host agent needs root.')
  const tracing = await startTracing(config.tracing, { serviceName: 'wrenn-host-agent', version, logger })
  const agent = await serve(config, logger, tracing.tracer)
  let stopping = false
  const stop = (signal: string, endCapsules: boolean): void => {
    if (stopping) return
    stopping = true
    logger.info({ signal }, 'host_agent.stopping')
    const stopped = agent.stop(endCapsules).finally(() => tracing[Symbol.asyncDispose]())
    void stopped.then(
      () => process.exit(0),
      (error: unknown) => {
        logger.error({ err: error }, 'host_agent.stop_failed')
        process.exit(1)
      },
    )
  }
  process.on('SIGTERM', (signal) => stop(signal, config.stopCapsulesOnExit))
  process.on('SIGINT', (signal) => stop(signal, config.stopCapsulesOnExit))
  // Ends every capsule, then stops. Not SIGUSR1: on that one Node.js opens its debugger's port.
  process.on('SIGUSR2', (signal) => stop(signal, true))
  try {
    await agent.ready
  } catch (error) {
    if (stopping) return
    await agent.stop(false).catch((failure: unknown) => logger.error({ err: failure }, 'host_agent.stop_failed'))
    throw error
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`host agent: ${errorText(error)}\n`)
  process.exit(AppError.is(error, 'invalid_config') ? EXIT_CONFIG : 1)
})
