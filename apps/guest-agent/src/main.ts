import { fileURLToPath } from 'node:url'
import { errorText } from '@wrenn/base'
import { readConfig } from './config.js'
import { startAgent } from './server.js'
import { stderrLogger } from './stderr-logger.js'
import { DevelopmentSystem } from './system/development-system.js'
import { RealGuestSystem } from './system/real-guest-system.js'
import { Tools } from './system/tools.js'

const config = readConfig()
const log = stderrLogger()
const tools = new Tools(config.toolsDir)
const agent = await startAgent({
  config,
  log,
  // Only an agent that came with its tools drive is inside a guest of ours; elsewhere it must not touch the machine.
  system: config.toolsDir === undefined ? new DevelopmentSystem() : new RealGuestSystem(tools),
  starter: tools.program('process-starter'),
  ptyModule: fileURLToPath(new URL('pty.node', import.meta.url)),
})

// An agent that ends takes the output of every running process with it; one failed callback is not worth that.
process.on('uncaughtException', (error) => log.error({ error: errorText(error), stack: error.stack }, 'agent.uncaught'))

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    void agent[Symbol.asyncDispose]().then(() => process.exit(0))
  })
}
