import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { DescService } from '@bufbuild/protobuf'
import { type Client, createClient, type Interceptor } from '@connectrpc/connect'
import { createConnectTransport } from '@connectrpc/connect-node'
import { silentLogger } from '@wrenn/base'
import type { LogLimits } from '../process/output-log.js'
import { type Agent, startAgent } from '../server.js'
import { DevelopmentSystem } from '../system/development-system.js'

export const SECRET = 'test-secret-0123456789abcdef'
export const TOKEN = '0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0'

/** A real agent on a free port, with its own state directory and, where the machine has cgroup2, its own cgroup. */
export class AgentHarness implements AsyncDisposable {
  readonly agent: Agent
  readonly system: DevelopmentSystem
  readonly stateDir: string
  /** A directory for the test's files, open to every user. */
  readonly dir: string

  private constructor(agent: Agent, system: DevelopmentSystem, stateDir: string, dir: string) {
    this.agent = agent
    this.system = system
    this.stateDir = stateDir
    this.dir = dir
  }

  static async start(options: { logLimits?: LogLimits; claimed?: boolean } = {}): Promise<AgentHarness> {
    const stateDir = mkdtempSync(join(tmpdir(), 'guest-agent-test-'))
    const dir = join(stateDir, 'files')
    mkdirSync(dir, { mode: 0o777 })
    const system = new DevelopmentSystem()
    const config = { port: 0, host: '127.0.0.1', toolsDir: undefined, stateDir, cgroupDir: undefined }
    const { claimed = true, ...limits } = options
    const agent = await startAgent({ config, system, log: silentLogger, ptyModule: ptyModule(), ...limits })
    const harness = new AgentHarness(agent, system, stateDir, dir)
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
    rmSync(this.stateDir, { recursive: true, force: true })
  }
}

export function asUserHeader(name: string): Record<string, string> {
  return { authorization: `Basic ${Buffer.from(`${name}:`).toString('base64')}` }
}

function ptyModule(): string {
  const manifest = createRequire(import.meta.url).resolve(`@lydell/node-pty-linux-${process.arch}/package.json`)
  const path = join(dirname(manifest), 'pty.node')
  if (!existsSync(path)) throw new Error(`No terminal module at ${path}`)
  return path
}
