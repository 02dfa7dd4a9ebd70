import { AppError, errorText } from '@wrenn/base'
import { startTracing } from '@wrenn/tracing'
import { runCommandLine } from './commands.js'
import { readConfig } from './config.js'
import { startControlPlane } from './control-plane.js'
import { createLogger } from './logger.js'
import { startPortProxy } from './port-proxy.js'
import { VERSION } from './version.js'

/** EX_CONFIG of sysexits.h: starting again without a change cannot help. */
const EXIT_CONFIG = 78
const STOP_WITHIN_MS = 30_000
/** What starts the port proxy alone. */
const PROXY = 'proxy'

async function main(): Promise<void> {
  const config = readConfig()
  const [command, ...args] = process.argv.slice(2)
  if (command !== undefined && command !== PROXY) {
    // Its answer is on stdout, as JSON lines.
    process.exitCode = await runCommandLine(command, args, config)
    return
  }
  const logger = createLogger(config.logLevel)
  const serviceName = command === PROXY ? 'wrenn-proxy' : 'wrenn-control-plane'
  const tracing = await startTracing(config.tracing, { serviceName, version: VERSION, logger })
  const start = command === PROXY ? startPortProxy : startControlPlane
  const running = await start(config, logger, { tracer: tracing.tracer })
  let stopping = false
  const stop = (signal: string): void => {
    if (stopping) return
    stopping = true
    logger.info({ signal }, 'control_plane.stopping')
    setTimeout(() => process.exit(1), STOP_WITHIN_MS).unref()
    end(running, tracing).then(
      () => process.exit(0),
      (error: unknown) => {
        logger.error({ error: errorText(error) }, 'control_plane.stop_failed')
        process.exit(1)
      },
    )
  }
  process.on('SIGTERM', () => stop('SIGTERM'))
  process.on('SIGINT', () => stop('SIGINT'))
}

/** What is left to tell of the end is told whatever became of it. */
async function end(running: AsyncDisposable, tracing: AsyncDisposable): Promise<void> {
  await using _ = tracing
  await running[Symbol.asyncDispose]()
}

main().catch((error: unknown) => {
  const { code, message, cause } = AppError.from(error)
  process.stderr.write(`${code}: ${message}${cause === undefined ? '' : ` (${errorText(cause)})`}\n`)
  process.exit(code === 'invalid_config' ? EXIT_CONFIG : 1)
})
