import { AppError, waitFor } from '@wrenn/base'
import type { Command } from 'commander'
import { type CommonOptions, type Context, contextOf, withDir, withJson } from '../context.js'
import { Interrupt } from '../interrupt.js'
import type { Progress } from '../output.js'
import { parseInteger, showMs } from '../units.js'
import { readJoinedUrl } from '../up/joined.js'
import { layoutOf } from '../up/layout.js'
import { waitAnswered, waitReady } from '../up/readiness.js'
import { alreadyRunning, DirectoryClaim, findRunning } from '../up/record.js'
import { reachable, requireDebianPackages, requirePort, requireRoot, requireWritable } from '../up/requirements.js'
import type { ServiceDeath } from '../up/service.js'
import { readSetUpLink, type SetUpLink } from '../up/set-up-link.js'
import { makeFolders, Supervisor, type SupervisorRole } from '../up/supervisor.js'
import { notifyReady } from '../up/systemd.js'
import { domainsOf, type TlsArguments, type TlsSetup, tlsSetup } from '../up/tls/options.js'

/** Before it answers it reads its journal, which is short. */
const HOST_AGENT_WITHIN_MS = 60_000

interface UpOptions extends CommonOptions, TlsArguments {
  readonly port?: number
  readonly host?: string
  readonly engine?: string
  readonly qemu?: string
  readonly install?: boolean
  readonly stopCapsules?: boolean
  readonly remoteHost?: boolean
}

const help = `
Examples:
  sudo wrenn up
  sudo wrenn up --dir /srv/wrenn --port 9000
  sudo wrenn up --domain sbx.test --tls      HTTPS too, by an authority of its own; see wrenn dns-help
  sudo wrenn up --domain sbx.example --tls-host 0.0.0.0 --tls-cert fullchain.pem --tls-key privkey.pem
  sudo wrenn up --json | head -1     one JSON line when ready

It runs in the foreground. ^C stops it; capsules keep running and are found again by the next \`wrenn up\`,
unless --stop-capsules is given. WRENN_UID_BASE (default 500000) moves the block of user ids it uses:
base + 1 the database, base + 2 the control plane, base + 100 and up one per capsule.

On a machine that has joined a platform elsewhere (\`wrenn host join\`) it runs the host agent alone.`

/** `wrenn up`: runs database, host agent and control plane as its children, in the foreground. */
export function addUp(program: Command): void {
  const command = program
    .command('up')
    .description('run a platform on this machine: database, control plane and host agent')
    .option('--port <number>', 'port of the API (default: WRENN_PORT or 8000)', parseInteger)
    .option('--host <address>', 'address to listen on (default: WRENN_HOST or 127.0.0.1)')
    .option('--domain <name>', 'ports have URLs below it (default: WRENN_PROXY_DOMAIN or localhost)')
    .option('--tls', 'serve HTTPS too, by a certificate of its own when none is given')
    .option('--tls-host <address>', 'address of HTTPS (default: WRENN_TLS_HOST or that of --host)')
    .option('--tls-port <number>', 'port of HTTPS (default: WRENN_TLS_PORT or 8443)', parseInteger)
    .option('--tls-cert <file>', 'certificate for the domain and *.domain, with its chain (default: WRENN_TLS_CERT)')
    .option('--tls-key <file>', 'its key (default: WRENN_TLS_KEY)')
    .option('--engine <name>', 'qemu-kvm or qemu-tcg; the default tries what works')
    .option('--qemu <program>', "QEMU's program (default: WRENN_QEMU or qemu-system-x86_64)")
    .option('--remote-host', 'run capsules on a machine that joins, none here (default: WRENN_REMOTE_HOST)')
    .option('--install', 'install missing Debian packages with apt-get')
    .option('--stop-capsules', 'end all capsules when it stops')
    .addHelpText('after', help)
  withDir(withJson(command)).action(async (options: UpOptions) => up(options))
}

async function up(options: UpOptions): Promise<void> {
  const context = contextOf(options)
  const { config, output } = context
  const layout = layoutOf(config.dir)
  const host = options.host ?? config.host
  const port = options.port ?? config.port
  const domains = domainsOf(options, config)
  const tls = tlsSetup(options, config)
  if (tls?.port === port) throw new AppError('invalid_config', `--port and --tls-port are both ${port}: choose two.`)
  const joined = await readJoinedUrl(layout)
  const role = roleOf(options.remoteHost ?? config.remoteHost, joined)
  const apiUrl = joined ?? `http://${reachable(host)}:${port}`
  const running = await findRunning(layout)
  if (running) throw alreadyRunning(layout, running)
  requireRoot()
  if (role !== 'control-plane') await requireDebianPackages(options.install ?? false, output)
  await makeFolders(layout, config.uidBase + 2)
  await requireWritable(layout.dir)

  using interrupt = new Interrupt()
  await using claim = await DirectoryClaim.take(layout, apiUrl, role)
  if (claim.stopped.length > 0) output.note(`Stopped what an earlier \`wrenn up\` left: ${claim.stopped.join(', ')}.`)
  if (role !== 'host') await requirePort(host, port, '--port')
  if (role !== 'host' && tls !== undefined) await requirePort(tls.host, tls.port, '--tls-port')
  const engine = options.engine ?? config.engine
  const stopCapsules = options.stopCapsules ?? false
  const broken = new AbortController()
  const tellDeath = (death: ServiceDeath): void => {
    if (death.isFinal) broken.abort(new AppError('invalid_config', death.lastLines.at(-1) ?? `${death.name} gave up.`))
    else tell(context, death)
  }
  {
    const progress = output.progress(role === 'host' ? 'starting the host agent' : 'starting the database')
    await using supervisor = new Supervisor({
      role,
      layout,
      config,
      host,
      port,
      domain: domains.join(','),
      tls,
      engine,
      qemu: options.qemu,
      stopCapsules,
      claim,
      onDeath: tellDeath,
      onProblem: (problem) => output.warn(problem),
    })
    try {
      const ended = AbortSignal.any([interrupt.signal, broken.signal])
      if (role === 'host') await runHost(context, supervisor, progress, ended, apiUrl)
      else await run(context, supervisor, progress, ended, { apiUrl, tls, role })
      broken.signal.throwIfAborted()
    } finally {
      progress.done()
    }
    output.note(`Stopping; capsules ${supervisor.endsCapsules ? 'end too.' : 'keep running.'}`)
  }
  output.note('Stopped.')
}

async function run(
  { config, output }: Context,
  supervisor: Supervisor,
  progress: Progress,
  ended: AbortSignal,
  { apiUrl, tls, role }: { readonly apiUrl: string; readonly tls: TlsSetup | undefined; readonly role: SupervisorRole },
): Promise<void> {
  const startedAt = performance.now()
  const isService = config.notifySocket !== undefined
  const stopAll = stopOnUsr2(supervisor)
  const signal = AbortSignal.any([ended, stopAll])
  try {
    await supervisor.start()
    progress.update(`starting ${role === 'platform' ? 'the host agent and ' : ''}the control plane`)
    // A host that has not joined, or is away, is not waited for: it joins by the API that is being started.
    if (role === 'control-plane') await waitAnswered(apiUrl, signal)
    else await waitReady(apiUrl, { signal, onReasons: (reasons) => progress.update(reasons.join(' ')) })
    const ms = Math.round(performance.now() - startedAt)
    progress.done()
    const keyFile = layoutOf(config.dir).apiKeyFile
    const secure = tls && { url: secureUrl(tls), authorityFile: supervisor.authorityFile }
    const setUp = await readSetUpLink(layoutOf(config.dir), config.publicUrl ?? apiUrl)
    announce(output, { apiUrl, keyFile, dir: config.dir, ms, pids: supervisor.pids, secure, setUp, isService, role })
    const untold = await notifyReady(config.notifySocket, `Ready at ${apiUrl}`)
    if (untold !== undefined) output.warn(`The service manager could not be told that Wrenn is ready: ${untold}`)
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

/** The host agent alone, on a machine that has joined. */
async function runHost(
  { config, output }: Context,
  supervisor: Supervisor,
  progress: Progress,
  ended: AbortSignal,
  url: string,
): Promise<void> {
  const signal = AbortSignal.any([ended, stopOnUsr2(supervisor)])
  try {
    await supervisor.start()
    await waitFor(() => supervisor.hostAgentAnswers(), {
      timeoutMs: HOST_AGENT_WITHIN_MS,
      signal,
      what: 'the host agent',
    })
    progress.done()
    const value = {
      event: 'ready',
      ready: true,
      api_url: url,
      dir: config.dir,
      pid: process.pid,
      pids: supervisor.pids,
    }
    output.result(value, () => `${output.bold('The host agent runs')}; the platform is ${url}. ^C stops it.`)
    const untold = await notifyReady(config.notifySocket, `A host of ${url}`)
    if (untold !== undefined) output.warn(`The service manager could not be told that Wrenn is ready: ${untold}`)
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

function roleOf(isRemote: boolean, joined: string | undefined): SupervisorRole {
  if (joined === undefined) return isRemote ? 'control-plane' : 'platform'
  if (!isRemote) return 'host'
  const message = `This machine is a host of ${joined}, and runs no control plane beside that: choose another --dir.`
  throw new AppError('invalid_config', message)
}

/**
 * `wrenn down --stop-capsules` sends SIGUSR2: stop, and the capsules with us. Heard to the end, because a signal that nobody
 * listens to would kill us.
 */
function stopOnUsr2(supervisor: Supervisor): AbortSignal {
  const asked = new AbortController()
  process.on('SIGUSR2', () => {
    supervisor.endCapsules()
    asked.abort()
  })
  return asked.signal
}

interface Announcement {
  readonly apiUrl: string
  readonly keyFile: string
  readonly dir: string
  readonly ms: number
  readonly pids: Readonly<Record<string, number | undefined>>
  /** Only while nobody has an account. */
  readonly setUp: SetUpLink | undefined
  /** What it prints is kept in a journal. */
  readonly isService: boolean
  readonly secure: { readonly url: string; readonly authorityFile: string | undefined } | undefined
  readonly role: SupervisorRole
}

function announce(output: Context['output'], ready: Announcement): void {
  const { apiUrl, keyFile, dir, ms, pids, secure, setUp, isService, role } = ready
  const value = {
    event: 'ready',
    ready: true,
    api_url: apiUrl,
    docs_url: `${apiUrl}/docs`,
    https_url: secure?.url,
    ca_file: secure?.authorityFile,
    key_file: keyFile,
    setup_url: isService ? undefined : setUp?.url,
    setup_command: setUp?.command,
    dir,
    ms,
    pid: process.pid,
    pids,
  }
  output.result(value, () =>
    [
      `${output.bold('Wrenn is ready')} ${output.dim(`(${showMs(ms)})`)}`,
      `  API       ${apiUrl}   (reference: ${apiUrl}/docs)`,
      ...(secure === undefined ? [] : [`  HTTPS     ${secure.url}${trust(secure.authorityFile)}`]),
      ...(setUp === undefined
        ? []
        : [`  Set up    ${isService ? setUp.command : setUp.url}   (the first account, in the browser; once)`]),
      `  API key   ${keyFile}`,
      role === 'platform'
        ? '  Try       npx wrenn run -- uname -a'
        : '  Host      npx wrenn host ls; npx wrenn host token',
      '  Stop      ^C',
    ].join('\n'),
  )
}

function tell({ output }: Context, death: ServiceDeath): void {
  const words = death.lastLines.slice(-3).map((line) => `\n    ${line.slice(0, 300)}`)
  const again = death.restartInMs < 1000 ? 'now' : `in ${Math.round(death.restartInMs / 1000)} s`
  output.warn(`${death.name} ended (${death.how}); starting it again ${again}. Log: ${death.logPath}${words.join('')}`)
}

/** The API by TLS: any name below the domain that is no port's reaches it. */
function secureUrl({ domains: [domain = ''], port }: TlsSetup): string {
  return `https://api.${domain}${port === 443 ? '' : `:${port}`}`
}

function trust(authorityFile: string | undefined): string {
  return authorityFile === undefined ? '' : `   (clients must trust ${authorityFile})`
}
