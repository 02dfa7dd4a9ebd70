import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { AppError, type RunAs, type StopStep, stopChild, UndoStack } from '@wrenn/base'
import { embeddedDatabaseUrl } from '@wrenn/postgres'
import type { Command } from 'commander'
import type { CliConfig } from '../config.js'
import { type CommonOptions, contextOf, withDir, withJson } from '../context.js'
import { Interrupt } from '../interrupt.js'
import { parseInteger } from '../units.js'
import { serviceUids } from '../up/database.js'
import { appBundle, DATABASE, type Layout, layoutOf } from '../up/layout.js'
import { programFor, spawnProgram } from '../up/program-for.js'
import { waitReady } from '../up/readiness.js'
import { findRunning } from '../up/record.js'
import { reachable, requirePort, requireRoot } from '../up/requirements.js'
import { CertificateFiles, SERVED_FILE } from '../up/tls/certificate-files.js'
import { domainsOf, type TlsArguments, type TlsSetup, tlsSetup } from '../up/tls/options.js'

const DEFAULT_PORT = 8001
const ladder: readonly StopStep[] = [
  { signal: 'SIGTERM', graceMs: 15_000 },
  { signal: 'SIGKILL', graceMs: 5_000 },
]

interface ProxyOptions extends CommonOptions, TlsArguments {
  readonly port?: number
}

const help = `
It serves the URLs of ports and nothing else, so that any number of them can stand beside each other and beside the platform, behind
a load balancer that asks each for /ready. It stays in the foreground and logs to stderr; ^C lets requests come to their end.

Beside a platform it takes database and host agent from the directory, which needs root. Anywhere else the environment says where they are:
DATABASE_URL, WRENN_HOST_AGENT_ADDRESS and, for https://, WRENN_HOST_AGENT_CA, WRENN_HOST_AGENT_CERT and WRENN_HOST_AGENT_KEY. Started by
root, it runs as the control plane's user (WRENN_UID_BASE + 2).

Examples:
  sudo wrenn proxy --port 8001
  sudo wrenn proxy --port 8001 --domain sbx.example --tls      the certificate that the platform serves
  DATABASE_URL=postgres://… WRENN_HOST_AGENT_ADDRESS=https://10.0.0.2:7443 wrenn proxy --host 0.0.0.0 --domain sbx.example`

/** `wrenn proxy`: the port proxy alone, in the foreground. */
export function addProxy(program: Command): void {
  const command = program
    .command('proxy')
    .description('serve the URLs of ports, and nothing else, beside a running platform')
    .option('--port <number>', `port to listen on (default: ${DEFAULT_PORT})`, parseInteger)
    .option('--host <address>', 'address to listen on (default: WRENN_HOST or 127.0.0.1)')
    .option('--domain <name>', 'ports have URLs below it (default: WRENN_PROXY_DOMAIN or localhost)')
    .option('--tls', 'serve HTTPS too, with the certificate of the platform when none is given')
    .option('--tls-host <address>', 'address of HTTPS (default: WRENN_TLS_HOST or that of --host)')
    .option('--tls-port <number>', 'port of HTTPS (default: WRENN_TLS_PORT or 8443)', parseInteger)
    .option('--tls-cert <file>', 'certificate for the domain and *.domain, with its chain (default: WRENN_TLS_CERT)')
    .option('--tls-key <file>', 'its key (default: WRENN_TLS_KEY)')
    .addHelpText('after', help)
  withDir(withJson(command)).action(async (options: ProxyOptions) => proxy(options))
}

async function proxy(options: ProxyOptions): Promise<void> {
  const context = contextOf(options)
  const { config, output } = context
  const layout = layoutOf(config.dir)
  const at = { host: options.host ?? config.host, port: options.port ?? DEFAULT_PORT }
  const domain = domainsOf(options, config).join(',')
  const tls = tlsSetup(options, config)
  const platform = await findPlatform(config, layout)
  await requirePort(at.host, at.port, '--port')
  if (tls !== undefined) await requirePort(tls.host, tls.port, '--tls-port')
  using interrupt = new Interrupt()
  await using undo = new UndoStack()
  const uid = serviceUids(config).controlPlane
  const user = process.getuid?.() === 0 ? { uid, gid: uid } : undefined
  const certificate = tls && (await certificateOf(tls, { layout, user, undo, onProblem: (text) => output.warn(text) }))
  const own = { program: process.execPath, bundle: appBundle('control-plane') }
  const { bundle, ...program } = user === undefined ? own : await programFor(user, own.bundle, layout.programsDir)
  const child = spawnProgram({
    ...program,
    user,
    args: [bundle, 'proxy'],
    stdio: ['ignore', 2, 2],
    detached: true,
    env: {
      ...config.inherited,
      ...platform,
      WRENN_DIR: layout.dir,
      WRENN_HOST: at.host,
      WRENN_PORT: String(at.port),
      WRENN_PROXY_DOMAIN: domain,
      WRENN_TLS_HOST: tls?.host,
      WRENN_TLS_PORT: tls && String(tls.port),
      WRENN_TLS_CERT: certificate?.certFile,
      WRENN_TLS_KEY: certificate?.keyFile,
    },
  })
  await undo.defer(() => stopChild(child, ladder))
  const gone = new AbortController()
  const onEnd = (): void => gone.abort(new AppError('engine_failure', 'The proxy ended; why, it has said above.'))
  child.once('error', onEnd).once('exit', onEnd)
  const signal = AbortSignal.any([interrupt.signal, gone.signal])
  try {
    const url = `http://${reachable(at.host)}:${at.port}`
    await waitReady(url, { signal, onReasons: (reasons) => output.note(reasons.join(' ')) })
    const ready = { event: 'ready', url, domain, tls_port: tls?.port, pid: process.pid }
    output.result(ready, () => `Serving ports of capsules at ${url}, for names below ${domain}. ^C stops it.`)
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
    signal.throwIfAborted()
  } catch (error) {
    if (!interrupt.signal.aborted) throw error
  }
}

/**
 * Database and host agent, as the environment names them, else those of the platform that runs in the directory.
 * @throws AppError `invalid_config` when there are none
 */
async function findPlatform(config: CliConfig, layout: Layout): Promise<Readonly<Record<string, string>>> {
  const address = config.inherited.WRENN_HOST_AGENT_ADDRESS
  if (config.databaseUrl !== undefined) {
    if (address !== undefined) return { DATABASE_URL: config.databaseUrl, WRENN_HOST_AGENT_ADDRESS: address }
    throw new AppError('invalid_config', 'With DATABASE_URL, WRENN_HOST_AGENT_ADDRESS says where the host agent is.')
  }
  requireRoot()
  const running = await findRunning(layout)
  if (running?.role !== undefined && running.role !== 'platform') {
    const message = 'A proxy alone reaches no host on another machine: the platform itself serves its ports.'
    throw new AppError('invalid_config', message)
  }
  if (running === undefined) {
    const otherwise = 'give its --dir, or set DATABASE_URL and WRENN_HOST_AGENT_ADDRESS.'
    throw new AppError('invalid_config', `No platform runs in ${layout.dir}: start it with \`wrenn up\`, ${otherwise}`)
  }
  const database = embeddedDatabaseUrl(layout.postgresDir, DATABASE)
  return { DATABASE_URL: database, WRENN_HOST_AGENT_ADDRESS: `unix:${layout.hostSocket}` }
}

interface CertificateDeps {
  readonly layout: Layout
  readonly user: RunAs | undefined
  readonly undo: UndoStack
  readonly onProblem: (problem: string) => void
}

/** PEM files that the proxy may read. */
async function certificateOf(
  { source, port }: TlsSetup,
  { layout, user, undo, onProblem }: CertificateDeps,
): Promise<{ readonly certFile: string; readonly keyFile: string }> {
  if (source.kind === 'local') {
    const served = join(layout.tlsDir, SERVED_FILE)
    if (existsSync(served)) return { certFile: served, keyFile: served }
    throw new AppError('invalid_config', `The platform in ${layout.dir} serves no TLS: give --tls-cert and --tls-key.`)
  }
  if (user === undefined) return source
  const dir = join(layout.tlsDir, `proxy-${port}`)
  const files = await CertificateFiles.place({ source, dir, gid: user.gid, onProblem })
  await undo.defer(() => files[Symbol.dispose]())
  return { certFile: files.file, keyFile: files.file }
}
