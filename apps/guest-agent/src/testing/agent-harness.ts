import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { DescService } from '@bufbuild/protobuf'
import { type Client, createClient, type Interceptor } from '@connectrpc/connect'
import { createConnectTransport } from '@connectrpc/connect-node'
import { processStarter, silentLogger } from '@wrenn/base'
import { UserDirectory } from '../identity/users.js'
import type { LogLimits } from '../process/output-log.js'
import { type Agent, startAgent } from '../server.js'
import { DevelopmentSystem } from '../system/development-system.js'

export const SECRET = 'test-secret-0123456789abcdef'
export const TOKEN = '0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0'

/** An ordinary user with two supplementary groups, known to the harness's agents only; the home is `home` in its directory. */
export const TESTER = { name: 'tester', uid: 54_321, gid: 54_321, groups: [54_322, 54_323] } as const

export interface HarnessOptions {
  readonly logLimits?: LogLimits
  /** Default: the harness claims the agent with `SECRET`. */
  readonly claimed?: boolean
  /** A cgroup2 directory; absent: process trees are found by session. */
  readonly cgroupDir?: string
  /** Where the agent keeps its logs, when not in a directory of the harness's own. */
  readonly stateDir?: string
  /** Whether the resident starter makes the processes, as in a guest, or Node.js does. @default true */
  readonly starter?: boolean
  /** Where the agent keeps its identity for the one after it; absent: nowhere. */
  readonly runDir?: string
}

/** A real agent on a free port, with its own state directory and, where the machine has cgroup2, its own cgroup. */
export class AgentHarness implements AsyncDisposable {
  readonly agent: Agent
  readonly system: DevelopmentSystem
  readonly stateDir: string
  /** A directory for the test's files, open to every user. */
  readonly dir: string

  readonly #root: string

  private constructor(agent: Agent, system: DevelopmentSystem, stateDir: string, root: string) {
    this.agent = agent
    this.system = system
    this.stateDir = stateDir
    this.#root = root
    this.dir = join(root, 'files')
  }

  /** The home of `TESTER`. */
  get home(): string {
    return join(this.#root, 'home')
  }

  static async start(options: HarnessOptions = {}): Promise<AgentHarness> {
    const root = mkdtempSync(join(tmpdir(), 'guest-agent-test-'))
    chmodSync(root, 0o755)
    const dir = join(root, 'files')
    mkdirSync(dir)
    chmodSync(dir, 0o777)
    const { claimed = true, logLimits, cgroupDir, runDir, starter = true, stateDir = join(root, 'state') } = options
    const system = new DevelopmentSystem()
    const agent = await startAgent({
      config: { port: 0, host: '127.0.0.1', toolsDir: undefined, stateDir, cgroupDir, runDir },
      system,
      log: silentLogger,
      ptyModule: ptyModule(),
      ...(starter ? { starter: starterProgram(root) } : {}),
      users: testUsers(root),
      ...(logLimits === undefined ? {} : { logLimits }),
    })
    const harness = new AgentHarness(agent, system, stateDir, root)
    if (claimed) await harness.init({ secret: SECRET })
    return harness
  }

  get url(): string {
    return `http://127.0.0.1:${this.agent.port}`
  }

  /** A request with the secret; `headers` may take it away by an empty value. */
  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(`${this.url}${path}`, { ...init, headers: { 'x-wrenn-secret': SECRET, ...Object(init.headers) } })
  }

  init(body: unknown, headers: Record<string, string> = {}): Promise<Response> {
    return this.fetch('/init', { method: 'POST', body: JSON.stringify(body), headers })
  }

  client<Service extends DescService>(
    service: Service,
    codec: 'json' | 'binary' = 'binary',
    headers: Readonly<Record<string, string>> = {},
  ): Client<Service> {
    const authorize: Interceptor = (next) => (request) => {
      for (const [name, value] of Object.entries({ 'x-wrenn-secret': SECRET, ...headers }))
        request.header.set(name, value)
      return next(request)
    }
    const options = { baseUrl: this.url, httpVersion: '1.1', useBinaryFormat: codec === 'binary' } as const
    return createClient(service, createConnectTransport({ ...options, interceptors: [authorize] }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.agent[Symbol.asyncDispose]()
    rmSync(this.#root, { recursive: true, force: true })
  }
}

export function asUserHeader(name: string): Record<string, string> {
  return { authorization: `Basic ${Buffer.from(`${name}:`).toString('base64')}` }
}

/** The machine's own users and `TESTER`. */
function testUsers(root: string): UserDirectory {
  const etc = join(root, 'etc')
  const home = join(root, 'home')
  mkdirSync(etc)
  mkdirSync(home)
  chownSync(home, TESTER.uid, TESTER.gid)
  const { name, uid, gid, groups } = TESTER
  writeFileSync(
    join(etc, 'passwd'),
    `${readFileSync('/etc/passwd', 'utf8')}${name}:x:${uid}:${gid}:Test:${home}:/bin/sh\n`,
  )
  const lines = [`${name}:x:${gid}:`, ...groups.map((group) => `extra${group}:x:${group}:root,${name}`)]
  writeFileSync(join(etc, 'group'), `${readFileSync('/etc/group', 'utf8')}${lines.join('\n')}\n`)
  return new UserDirectory(etc)
}

/** None on another architecture than x86-64. */
function starterProgram(root: string): string | undefined {
  const program = processStarter()
  if (program === undefined) return undefined
  const path = join(root, 'process-starter')
  writeFileSync(path, program, { mode: 0o755 })
  return path
}

/** Where the native module of terminals is. */
export function ptyModule(): string {
  const manifest = createRequire(import.meta.url).resolve(`@lydell/node-pty-linux-${process.arch}/package.json`)
  const path = join(dirname(manifest), 'pty.node')
  if (!existsSync(path)) throw new Error(`No terminal module at ${path}`)
  return path
}
