import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { errorText } from '@wrenn/base'
import { IdentityFile } from '../identity/identity-file.js'
import { stderrLogger } from '../stderr-logger.js'
import { readConfig } from './config.js'
import type { CapsuleView } from './context.js'
import { Contexts } from './contexts.js'
import { JupyterApi } from './jupyter-api.js'
import { createInterpreter } from './server.js'

const POLL_MS = 100

const config = readConfig()
const log = stderrLogger({ service: 'interpreter' })
const jupyter = new JupyterApi(`http://127.0.0.1:${config.jupyterPort}`)
let contexts: Contexts | undefined

/** Whoever started this program starts it again: without Jupyter Server, or after it, nothing of it is of use. */
function end(reason: string): never {
  log.error({ reason }, 'interpreter.ended')
  process.exit(1)
}

const identity = new IdentityFile(config.identityPath)
function look(): CapsuleView {
  const { envs = {}, secret = '' } = identity.read() ?? {}
  return { envs, mark: createHash('sha256').update(secret).digest('hex') }
}

process.on('uncaughtException', (error) => end(errorText(error)))
createInterpreter({ contexts: () => contexts, log }).listen(config.port, '0.0.0.0')

// Kernels end with their server, and that with this program.
const server = spawn('setpriv', ['--pdeathsig', 'TERM', '/usr/bin/jupyter-server'], {
  cwd: config.cwd,
  env: config.environment,
  stdio: ['ignore', 'ignore', 'inherit'],
})
server.once('error', (error) => end(errorText(error)))
server.once('exit', (code, signal) => end(`Jupyter Server ended with ${code ?? signal}.`))

while (!(await jupyter.isUp())) await delay(POLL_MS)
const started = new Contexts({ jupyter, cwd: config.cwd, look })
await started.warmUp()
contexts = started
log.info({ port: config.port }, 'interpreter.listening')
