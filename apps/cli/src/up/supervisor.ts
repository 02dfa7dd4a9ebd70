import { chown, mkdir, open, readdir } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { AppError, identify, isErrno, type RunAs, type StopStep, UndoStack, waitFor } from '@wrenn/base'
import type { EmbeddedPostgres } from '@wrenn/postgres'
import type { CliConfig } from '../config.js'
import { serviceUids, startDatabase } from './database.js'
import { appBundle, DATABASE, type Layout, type ServiceName } from './layout.js'
import { LogFile } from './log-file.js'
import { programFor } from './program-for.js'
import type { ChildRecord, DirectoryClaim } from './record.js'
import { Service, type ServiceDeath, type ServiceOptions } from './service.js'
import { CertificateFiles } from './tls/certificate-files.js'
import type { TlsSetup } from './tls/options.js'

/** 7 MB less memory per service. Source maps would cost another 50 MB each: they are read at start, not when needed. */
const SMALL_HEAP = ['--max-semi-space-size=1']

const POSTGRES_RESTART_MS = 1000
const HOST_AGENT_ANSWER_MS = 10_000

const controlPlaneLadder: readonly StopStep[] = [
  { signal: 'SIGTERM', graceMs: 15_000 },
  { signal: 'SIGKILL', graceMs: 5_000 },
]
const hostAgentLadder: readonly StopStep[] = [
  { signal: 'SIGTERM', graceMs: 60_000 },
  { signal: 'SIGKILL', graceMs: 5_000 },
]
/** At SIGUSR2 it ends every capsule first. */
const endCapsulesLadder: readonly StopStep[] = [{ signal: 'SIGUSR2', graceMs: 90_000 }, ...hostAgentLadder]

/** What of a platform runs here: all of it, all but the host agent, or that alone. */
export type SupervisorRole = 'platform' | 'control-plane' | 'host'

/** What a platform is started with. */
export interface SupervisorOptions {
  readonly role: SupervisorRole
  readonly layout: Layout
  readonly config: CliConfig
  readonly host: string
  readonly port: number
  /** Names below which ports have their URLs; several by commas. */
  readonly domain: string
  readonly tls?: TlsSetup | undefined
  readonly engine: string | undefined
  /** @default WRENN_QEMU, which the host agent reads itself */
  readonly qemu?: string | undefined
  /** End capsules when it stops; `endCapsules` asks for that later. */
  readonly stopCapsules: boolean
  readonly claim: DirectoryClaim
  readonly onDeath: (death: ServiceDeath) => void
  /** Told what goes wrong beside the services. */
  readonly onProblem: (problem: string) => void
}

/** PostgreSQL, host agent and control plane of one directory, started in that order and stopped in reverse. */
export class Supervisor implements AsyncDisposable {
  readonly #options: SupervisorOptions
  readonly #undo = new UndoStack()
  #postgres: EmbeddedPostgres | undefined
  readonly #services: Service[] = []
  #recording = Promise.resolve()
  #hostAgent: Service | undefined
  #controlPlane: Service | undefined
  #certificates: CertificateFiles | undefined
  #stopping = false
  #endsCapsules: boolean
  #hostAgentSteps = hostAgentLadder

  constructor(options: SupervisorOptions) {
    this.#options = options
    this.#endsCapsules = options.stopCapsules
  }

  async start(): Promise<void> {
    const { role, config } = this.#options
    const databaseUrl = role === 'host' ? undefined : (config.databaseUrl ?? (await this.#startPostgres()))
    if (role !== 'control-plane') {
      this.#hostAgent = await this.#startService('host-agent', () => this.#hostAgentSteps, this.#hostAgentEnv())
    }
    if (databaseUrl !== undefined) await this.#startControlPlane(databaseUrl)
  }

  async #startControlPlane(databaseUrl: string): Promise<void> {
    const { layout } = this.#options
    const uid = this.#uids.controlPlane
    const user = { uid, gid: uid }
    for (const file of [layout.apiKeyFile, layout.encryptionKeyFile]) await makeKeyFile(file, user)
    await makeSetUpFile(layout, user)
    await makeOwnFolders(layout, user)
    await this.#placeCertificates(uid)
    const { bundle, ...program } = await programFor(user, appBundle('control-plane'), layout.programsDir)
    this.#controlPlane = await this.#startService(
      'control-plane',
      () => controlPlaneLadder,
      this.#controlPlaneEnv(databaseUrl),
      { ...program, user, args: [...SMALL_HEAP, bundle] },
    )
  }

  async #placeCertificates(gid: number): Promise<void> {
    const { layout, tls, onProblem } = this.#options
    if (tls === undefined) return
    const files = await CertificateFiles.place({ source: tls.source, dir: layout.tlsDir, gid, onProblem })
    this.#certificates = files
    await this.#undo.defer(() => files[Symbol.dispose]())
  }

  /** For clients to trust; `undefined` where no authority of this platform's own is needed. */
  get authorityFile(): string | undefined {
    return this.#certificates?.authorityFile
  }

  get #uids() {
    return serviceUids(this.#options.config)
  }

  async #startPostgres(): Promise<string> {
    const server = await startDatabase(this.#options.layout, this.#options.config)
    this.#postgres = server
    await this.#undo.defer(() => this.#postgres?.stop())
    await server.createDatabase(DATABASE)
    void this.#watchPostgres(server)
    return server.connectionString(DATABASE)
  }

  /** A database that dies is started again; its clients reconnect on their own. */
  async #watchPostgres(server: EmbeddedPostgres): Promise<void> {
    const exit = await server.exited
    if (this.#stopping) return
    this.#options.onDeath({
      name: 'postgres',
      how: exit.signal ?? `code ${exit.code}`,
      restartInMs: POSTGRES_RESTART_MS,
      isFinal: false,
      lastLines: [],
      logPath: join(this.#options.layout.logsDir, 'postgres.log'),
    })
    setTimeout(() => void this.#restartPostgres(), POSTGRES_RESTART_MS)
  }

  async #restartPostgres(): Promise<void> {
    if (this.#stopping) return
    const { layout, config } = this.#options
    try {
      this.#postgres = await startDatabase(layout, config)
      if (this.#stopping) await this.#postgres.stop()
      else void this.#watchPostgres(this.#postgres)
    } catch (error) {
      this.#options.onDeath({
        name: 'postgres',
        how: AppError.from(error).message,
        restartInMs: POSTGRES_RESTART_MS,
        isFinal: false,
        lastLines: [],
        logPath: join(layout.logsDir, 'postgres.log'),
      })
      setTimeout(() => void this.#restartPostgres(), POSTGRES_RESTART_MS)
    }
  }

  #hostAgentEnv(): Record<string, string | undefined> {
    const { layout, engine, qemu } = this.#options
    const socketOwner = String(this.#uids.controlPlane)
    return {
      WRENN_DIR: layout.dir,
      WRENN_HOST_AGENT_SOCKET: layout.hostSocket,
      WRENN_SOCKET_UID: socketOwner,
      WRENN_SOCKET_GID: socketOwner,
      WRENN_UID_BASE: String(this.#options.config.uidBase),
      ...(engine ? { WRENN_ENGINE: engine } : {}),
      ...(qemu ? { WRENN_QEMU: qemu } : {}),
    }
  }

  #controlPlaneEnv(databaseUrl: string): Record<string, string | undefined> {
    const { role, layout, host, port, domain, tls } = this.#options
    const certificates = this.#certificates
    return {
      WRENN_DIR: layout.dir,
      DATABASE_URL: databaseUrl,
      WRENN_HOST_AGENT_ADDRESS: role === 'control-plane' ? 'joined' : `unix:${layout.hostSocket}`,
      WRENN_HOST: host,
      WRENN_PORT: String(port),
      WRENN_API_KEY_FILE: layout.apiKeyFile,
      WRENN_ENCRYPTION_KEY_FILE: layout.encryptionKeyFile,
      WRENN_SETUP_FILE: layout.setUpFile,
      WRENN_MAIL_OUTBOX: layout.outboxDir,
      WRENN_BUILD_FILES_DIR: layout.buildFilesDir,
      WRENN_PROXY_DOMAIN: domain,
      WRENN_TLS_HOST: tls?.host,
      WRENN_TLS_PORT: tls && String(tls.port),
      WRENN_TLS_CERT: certificates?.file,
      WRENN_TLS_KEY: certificates?.file,
    }
  }

  async #startService(
    name: ServiceName,
    ladder: () => readonly StopStep[],
    env: Readonly<Record<string, string | undefined>>,
    program: Partial<ServiceOptions> = {},
  ): Promise<Service> {
    const log = new LogFile(join(this.#options.layout.logsDir, `${name}.log`))
    const service = new Service({
      name,
      program: process.execPath,
      args: [...SMALL_HEAP, appBundle(name)],
      ...program,
      lifeline: this.#options.layout.lifelines[name],
      env: { ...this.#options.config.inherited, ...env },
      log,
      maxRestartDelayMs: this.#options.config.maxRestartDelayMs,
      ladder,
      onChange: () => this.#recordChildren(),
      onDeath: this.#options.onDeath,
    })
    await this.#undo.defer(() => log.close())
    await this.#undo.defer(() => service.stop())
    this.#services.push(service)
    service.start()
    return service
  }

  /** One write after the other, so that the last one tells the latest. */
  #recordChildren(): void {
    this.#recording = this.#recording.then(async () => {
      if (this.#stopping) return
      const children: ChildRecord[] = []
      for (const service of this.#services) {
        const id = service.pid === undefined ? undefined : await identify(service.pid)
        if (id) children.push({ ...id, name: service.name })
      }
      await this.#options.claim.setChildren(children)
    })
    // A record that could not be written costs the next `wrenn up` its tidying, nothing else.
    this.#recording = this.#recording.catch(() => {})
  }

  /** Pids of what runs, for messages and tests. */
  get pids(): Readonly<Record<string, number | undefined>> {
    return {
      postgres: this.#postgres?.pid,
      hostAgent: this.#hostAgent?.pid,
      controlPlane: this.#controlPlane?.pid,
    }
  }

  /** From now on capsules end when this does. */
  endCapsules(): void {
    this.#endsCapsules = true
  }

  get endsCapsules(): boolean {
    return this.#endsCapsules
  }

  /** To end capsules the agent first finishes its start, which may take minutes; with none there it need not. */
  async #chooseHostAgentLadder(): Promise<void> {
    if (!this.#endsCapsules || this.#hostAgent?.pid === undefined || !(await hasCapsules(this.#options.layout))) return
    // Before it answers it does not listen to signals either.
    const answers = { timeoutMs: HOST_AGENT_ANSWER_MS, what: 'the host agent to answer' }
    await waitFor(() => this.hostAgentAnswers(), answers).catch((error: unknown) => {
      if (!AppError.is(error, 'timeout')) throw error
    })
    this.#hostAgentSteps = endCapsulesLadder
  }

  /** True once the host agent listens, ready or not. */
  async hostAgentAnswers(): Promise<true | undefined> {
    return await new Promise((resolve) => {
      const socket = createConnection(this.#options.layout.hostSocket)
      socket.once('connect', () => {
        socket.destroy()
        resolve(true)
      })
      socket.once('error', () => resolve(undefined))
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true
    await this.#recording
    await this.#chooseHostAgentLadder()
    await this.#undo[Symbol.asyncDispose]()
  }
}

/** Whether the host agent's journal knows of a capsule. */
async function hasCapsules(layout: Layout): Promise<boolean> {
  try {
    return (await readdir(layout.journalDir)).some((name) => name.endsWith('.json'))
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false
    throw error
  }
}

/** The control plane, which has no rights in the directory, writes a key into it, or finds it there. */
async function makeKeyFile(path: string, user: RunAs): Promise<void> {
  await using file = await open(path, 'a', 0o600)
  await file.chown(user.uid, user.gid)
}

/** Empty, so that each start has a code of its own: the control plane writes one while nobody has an account. */
async function makeSetUpFile(layout: Layout, user: RunAs): Promise<void> {
  await using file = await open(layout.setUpFile, 'w', 0o600)
  await file.chown(user.uid, user.gid)
}

/** The control plane's own folders; what mails say and builds copy is nobody else's matter. */
async function makeOwnFolders({ outboxDir, buildFilesDir }: Layout, user: RunAs): Promise<void> {
  for (const dir of [outboxDir, buildFilesDir]) {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    await chown(dir, user.uid, user.gid)
  }
}

/** Makes the platform's folders; the control plane may enter `run/` (its host agent's socket). */
export async function makeFolders(layout: Layout, controlPlaneUid: number): Promise<void> {
  await mkdir(layout.dir, { recursive: true, mode: 0o755 })
  await mkdir(layout.runDir, { recursive: true, mode: 0o755 })
  await mkdir(layout.logsDir, { recursive: true, mode: 0o750 })
  await chown(layout.logsDir, 0, controlPlaneUid)
}
