import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { join } from 'node:path'
import { AppError, type Logger, queryText } from '@wrenn/base'
import { Filesystem, isClientRoute, Process } from '@wrenn/protocol/guest'
import type { AgentConfig } from './config.js'
import { FileVersions } from './files/file-versions.js'
import { MetadataStore } from './files/metadata.js'
import { WatcherRegistry } from './files/watcher-registry.js'
import { handleArchive } from './http/archive.js'
import { ClientLines } from './http/client-line.js'
import { Connections } from './http/connections.js'
import { handleFiles } from './http/files-route.js'
import { handleInit } from './http/init.js'
import { Metrics } from './http/metrics.js'
import { handleQuiesce } from './http/quiesce.js'
import { sendError, sendJson } from './http/reply.js'
import { handleUpgrade } from './http/tunnel.js'
import { type Caller, Identity, unauthorized } from './identity/identity.js'
import { IdentityFile } from './identity/identity-file.js'
import { UserDirectory } from './identity/users.js'
import { Birthmarks } from './process/birthmark.js'
import { CgroupTree } from './process/cgroup.js'
import { Launcher } from './process/launcher.js'
import { SystemLocale } from './process/locale.js'
import { NativePty } from './process/native-pty.js'
import type { LogLimits } from './process/output-log.js'
import { PipePool } from './process/pipes.js'
import { ProcessRegistry } from './process/registry.js'
import { filesystemService } from './rpc/filesystem-service.js'
import { processService } from './rpc/process-service.js'
import { RpcRouter } from './rpc/router.js'
import { ProcessStarter } from './starter/process-starter.js'
import type { GuestSystem } from './system/guest-system.js'
import { Tools } from './system/tools.js'

/** Longer than any pool keeps an idle connection, so that it is always the client that closes first. */
const KEEP_ALIVE_MS = 10 * 60_000

/** What the agent does not find out by itself: its settings, and the guest it is in, which tests replace. */
export interface AgentOptions {
  readonly config: AgentConfig
  readonly system: GuestSystem
  readonly log: Logger
  /** Where the native terminal module is when the tools directory has none. */
  readonly ptyModule: string
  /** Path of the process starter's program. @default none: Node.js starts the processes */
  readonly starter?: string | undefined
  readonly users?: UserDirectory
  readonly logLimits?: LogLimits
}

/** A listening agent. Disposing it ends its processes. */
export interface Agent extends AsyncDisposable {
  readonly port: number
}

/**
 * Sets this process's umask to 022, opens the port and returns once it listens; processes can then be started.
 * @throws the system's error when the port is taken
 */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { config, log } = options
  process.umask(0o022)
  const tools = new Tools(config.toolsDir)
  const users = options.users ?? new UserDirectory()
  const file = config.runDir === undefined ? undefined : new IdentityFile(join(config.runDir, 'identity.json'))
  const identity = new Identity(users, file)
  const pipes = new PipePool(config.runDir ?? config.stateDir, tools)
  await pipes.prepare()
  const cgroups = CgroupTree.open(config.cgroupDir)
  const marks = Birthmarks.open()
  const pty = new NativePty(tools.ptyModule(options.ptyModule))
  const starter = await openStarter(options, pipes, pty)
  const launcher = new Launcher({ pipes, cgroups, marks, tools, pty, starter, log, system: options.system })
  const registry = new ProcessRegistry({
    launcher,
    cgroups,
    stateDir: config.stateDir,
    ...(options.logLimits === undefined ? {} : { logLimits: options.logLimits }),
  })
  const metadata = new MetadataStore(config.stateDir, tools)
  const watchers = new WatcherRegistry()
  const router = new RpcRouter(log)
    .add(Process, processService(registry, identity, new SystemLocale()))
    .add(Filesystem, filesystemService({ identity, users, metadata, watchers, tools }))
  const connections = new Connections()
  const handler = new RequestHandler({ identity, router, metadata, registry, connections, tools, ...options })
  const lines = new ClientLines({ identity, listener: handler.clientListener, keepAliveMs: KEEP_ALIVE_MS })
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS, requestTimeout: 0 }, handler.listener)
  server.on('connection', (socket) => connections.add(socket))
  let ownPort = config.port
  server.on('upgrade', (request, socket: Socket, head) => {
    // A line that waits for requests is no use of the guest.
    if (lines.take(request, socket, head)) return
    connections.began(socket)
    void handleUpgrade(request, socket, head, { identity, ownPort })
  })
  await listen(server, config)
  const { port } = server.address() as AddressInfo
  ownPort = port
  log.info({ port }, 'agent.listening')
  return {
    port,
    async [Symbol.asyncDispose]() {
      registry.close()
      starter?.close()
      watchers.close()
      pipes.close()
      cgroups?.close()
      marks?.close()
      lines.close()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** After the agent has gone to its own cgroup, in which the starter belongs. It waits inside the template's snapshot. */
async function openStarter(
  options: AgentOptions,
  pipes: PipePool,
  pty: NativePty,
): Promise<ProcessStarter | undefined> {
  if (options.starter === undefined) return undefined
  const starter = new ProcessStarter({ program: options.starter, pipes, pty, log: options.log })
  await starter.prepare()
  pipes.maker = (names) => starter.makePipes(names)
  return starter
}

function listen(server: Server, config: AgentConfig): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(config.port, config.host, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

interface HandlerDependencies {
  readonly identity: Identity
  readonly router: RpcRouter
  readonly metadata: MetadataStore
  readonly registry: ProcessRegistry
  readonly connections: Connections
  readonly tools: Tools
  readonly system: GuestSystem
  readonly config: AgentConfig
  readonly log: Logger
}

/** Sends each request to its route, once it may go there. */
class RequestHandler {
  readonly #dependencies: HandlerDependencies
  readonly #identity: Identity
  readonly #metrics = new Metrics()
  readonly #versions = new FileVersions()

  constructor(dependencies: HandlerDependencies) {
    this.#dependencies = dependencies
    this.#identity = dependencies.identity
  }

  /** Of the agent's port: each request proves where it comes from. */
  readonly listener = (request: IncomingMessage, response: ServerResponse): void => {
    this.#answer(response, this.#handle(request, response))
  }

  /** Of lines for clients: nothing is proven, and the host's routes are not there. */
  readonly clientListener = (request: IncomingMessage, response: ServerResponse): void => {
    this.#answer(response, this.#handleClient(request, response))
  }

  #answer(response: ServerResponse, handled: Promise<void>): void {
    handled.catch((error: unknown) => {
      if (!AppError.is(error)) this.#dependencies.log.error({ error: String(error) }, 'http.failed')
      sendError(response, error)
    })
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { registry, connections, tools } = this.#dependencies
    const target = targetOf(request)
    const { path, query } = target
    const route = `${request.method} ${path}`
    if (path === '/health') {
      response.writeHead(204).end()
    } else if (route === 'POST /init') {
      const forgetEnded = (): void => registry.forgetEnded()
      await handleInit(request, response, { ...this.#dependencies, forgetEnded })
    } else if (route === 'GET /activity' || route === 'POST /quiesce') {
      if (!this.#identity.isHost(request.headers)) throw unauthorized()
      if (path === '/activity') sendJson(response, 200, this.#activity())
      else await handleQuiesce(request, response, registry, this.#dependencies.system)
    } else {
      const caller = this.#identity.callerOf(request.headers)
      const maySign = path === '/files' && this.#identity.isClaimed
      if (caller === undefined && !maySign) throw unauthorized()
      if (path !== '/archive') return await this.#serve(target, request, response, caller)
      connections.began(response)
      await handleArchive(request, response, queryText(query), this.#identity, tools)
    }
  }

  async #handleClient(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const target = targetOf(request)
    const { path } = target
    if (!isClientRoute(request.method ?? '', path)) sendNoRoute(response, path)
    else if (path === '/health') response.writeHead(204).end()
    else await this.#serve(target, request, response, 'client')
  }

  /** @param caller `undefined` for who has to show a signature, on `/files` only */
  async #serve(
    { path, query }: Target,
    request: IncomingMessage,
    response: ServerResponse,
    caller: Caller | undefined,
  ): Promise<void> {
    const { router, metadata, connections } = this.#dependencies
    if (path === '/files') {
      connections.began(response)
      await handleFiles(request, response, queryText(query), caller, {
        identity: this.#identity,
        metadata,
        versions: this.#versions,
        spoolDir: join(this.#dependencies.config.stateDir, 'uploads'),
      })
    } else if (caller !== undefined && router.has(path)) {
      connections.began(response)
      await router.handle(path, request, response, caller)
    } else if (path === '/metrics' && request.method === 'GET') {
      sendJson(response, 200, this.#metrics.read())
    } else if (path === '/envs' && request.method === 'GET') {
      sendJson(response, 200, this.#identity.values.envs)
    } else {
      sendNoRoute(response, path)
    }
  }

  /** What keeps this guest from being idle. `openStreams`: calls that are not answered to their end, and tunnels. */
  #activity(): Readonly<Record<string, number>> {
    const running = this.#dependencies.registry.running()
    return {
      foreground: running.filter((session) => session.foreground).length,
      processes: running.length,
      openStreams: this.#dependencies.connections.busy,
    }
  }
}

interface Target {
  /** As it came; another spelling of a route is none. */
  readonly path: string
  readonly query: string
}

function targetOf({ url = '/' }: IncomingMessage): Target {
  const mark = url.indexOf('?')
  return mark < 0 ? { path: url, query: '' } : { path: url.slice(0, mark), query: url.slice(mark + 1) }
}

function sendNoRoute(response: ServerResponse, path: string): void {
  sendJson(response, 404, { code: 404, message: `No route ${path}.` })
}
