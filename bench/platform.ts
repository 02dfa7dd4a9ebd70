import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises'
import { Agent, type IncomingMessage, request } from 'node:http'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { createClient } from '@connectrpc/connect'
import { createConnectTransport } from '@connectrpc/connect-node'
import { HostService } from '@wrenn/protocol/host'
import { Wrenn } from '@wrenn/sdk'
import { WebSocket } from 'ws'
import { countBytes, DirectGuest } from './guest.js'

/** A new directory that the platform's own users can pass through. */
export async function scratchDir(prefix: string): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), prefix))
  await chmod(dir, 0o711)
  return dir
}

export const CLI = fileURLToPath(new URL('../apps/cli/bin/wrenn.mjs', import.meta.url))
const START_TIMEOUT_MS = 900_000
const REQUEST_TIMEOUT_MS = 300_000

export interface PlatformOptions {
  readonly dir: string
  readonly port: number
  /** Most waiting VMs per shape; 0 makes every create a restore. */
  readonly hotPoolMax: number
  /** The built command line that starts and ends it. @default that of this checkout */
  readonly cli?: string
  /** Beside `platformEnv`. */
  readonly env?: Readonly<Record<string, string>>
}

export interface Capsule {
  readonly id: string
  readonly state: string
  readonly path?: string
  readonly timings?: readonly { readonly step: string; readonly ms: number }[]
}

/** What the host agent's journal says of a running capsule. */
export interface JournalRecord {
  readonly secret: string
  readonly resources: {
    readonly vmId: string
    readonly guestAddress: string
    readonly vm: { pid: number; runDir: string }
  }
}

interface Ready {
  readonly api_url: string
  readonly ms: number
  readonly pids: { readonly postgres: number; readonly hostAgent: number; readonly controlPlane: number }
}

/** A platform of the benchmark's own, started through the built CLI as its user would start it. */
export class Platform implements AsyncDisposable {
  readonly dir: string
  readonly pids: Ready['pids']
  readonly startMs: number
  readonly host
  readonly wrenn: Wrenn
  readonly #apiUrl: string
  readonly #apiKey: string
  readonly #child: ChildProcess
  readonly #cli: string
  readonly #agent = new Agent({ keepAlive: true, noDelay: true })

  private constructor({ dir, cli = CLI }: PlatformOptions, child: ChildProcess, ready: Ready, apiKey: string) {
    this.dir = dir
    this.#cli = cli
    this.#child = child
    this.#apiUrl = ready.api_url
    this.#apiKey = apiKey
    this.pids = ready.pids
    this.startMs = ready.ms
    const createSocket = () => createConnection(join(dir, 'run/host-agent.sock'))
    this.host = createClient(
      HostService,
      createConnectTransport({
        httpVersion: '2',
        baseUrl: 'http://host-agent',
        nodeOptions: { createConnection: createSocket, settings: { initialWindowSize: 2 ** 20 } },
      }),
    )
    // ws and the SDK describe the same class in different words.
    const webSocket = WebSocket as unknown as NonNullable<ConstructorParameters<typeof Wrenn>[0]>['webSocket'] & {}
    this.wrenn = new Wrenn({ apiUrl: ready.api_url, apiKey, webSocket, requestTimeoutMs: REQUEST_TIMEOUT_MS })
  }

  static async start(options: PlatformOptions): Promise<Platform> {
    const { dir, port, hotPoolMax, cli = CLI, env } = options
    const child = spawn(process.execPath, [cli, 'up', '--dir', dir, '--port', String(port), '--json', '--install'], {
      env: platformEnv({ WRENN_HOT_POOL_MAX: String(hotPoolMax), ...env }),
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    // Progress while it starts; later, which service died.
    child.stderr.on('data', (chunk: Buffer) => process.stderr.write(chunk))
    const timer = setTimeout(() => child.kill('SIGTERM'), START_TIMEOUT_MS)
    try {
      for await (const line of createInterface({ input: child.stdout })) {
        const message: unknown = JSON.parse(line)
        if (!isReady(message)) continue
        const apiKey = (await readFile(join(dir, 'api-key'), 'utf8')).trim()
        return new Platform(options, child, message, apiKey)
      }
      throw new Error('The platform did not start; its words are above.')
    } finally {
      clearTimeout(timer)
    }
  }

  /** A REST call; gives the answer's JSON. */
  async call<T>(method: string, path: string, body?: unknown): Promise<T> {
    return await new Promise<T>((resolve, reject) => {
      const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body))
      const headers = {
        'x-api-key': this.#apiKey,
        ...(payload ? { 'content-type': 'application/json', 'content-length': String(payload.length) } : {}),
      }
      const options = { agent: this.#agent, method, headers, timeout: REQUEST_TIMEOUT_MS }
      const outgoing = request(`${this.#apiUrl}${path}`, options, (answer) => {
        text(answer).then((got) => {
          if ((answer.statusCode ?? 500) >= 300) reject(new Error(`${method} ${path}: ${answer.statusCode} ${got}`))
          else resolve(got === '' ? (undefined as T) : JSON.parse(got)) // T is what the caller knows of this route
        }, reject)
      })
      outgoing.once('error', reject)
      outgoing.end(payload)
    })
  }

  /** Environment for a CLI that talks to this platform. */
  get clientEnv(): Record<string, string> {
    return { WRENN_API_URL: this.#apiUrl, WRENN_API_KEY: this.#apiKey }
  }

  async upload(id: string, path: string, body: Readable): Promise<void> {
    const answer = await this.#stream(
      'PUT',
      `/v1/capsules/${id}/files?${new URLSearchParams({ path, user: 'root' })}`,
      body,
    )
    await countBytes(answer)
  }

  async download(id: string, path: string): Promise<number> {
    const query = new URLSearchParams({ path, user: 'root' })
    return await countBytes(await this.#stream('GET', `/v1/capsules/${id}/files?${query}`))
  }

  async #stream(method: string, path: string, body?: Readable): Promise<IncomingMessage> {
    return await new Promise((resolve, reject) => {
      const headers = { 'x-api-key': this.#apiKey, ...(body ? { 'content-type': 'application/octet-stream' } : {}) }
      const outgoing = request(`${this.#apiUrl}${path}`, { agent: this.#agent, method, headers }, (answer) => {
        if ((answer.statusCode ?? 500) < 300) resolve(answer)
        else text(answer).then((got) => reject(new Error(`${method} ${path}: ${answer.statusCode} ${got}`)), reject)
      })
      outgoing.once('error', reject)
      if (body === undefined) outgoing.end()
      else body.pipe(outgoing)
    })
  }

  async create(spec: Readonly<Record<string, unknown>> = {}): Promise<Capsule> {
    const capsule = await this.call<Capsule>('POST', '/v1/capsules?wait_sec=200', spec)
    if (capsule.state !== 'running') throw new Error(`The capsule is ${capsule.state}: ${JSON.stringify(capsule)}`)
    return capsule
  }

  async exec(id: string, cmd: string, args: readonly string[] = []): Promise<string> {
    const answer = await this.call<{ exit_code: number; stdout: string; stderr: string }>(
      'POST',
      `/v1/capsules/${id}/exec`,
      { cmd, args, user: 'root', timeout_sec: 120 },
    )
    if (answer.exit_code !== 0) throw new Error(`${cmd} failed in ${id} with ${answer.exit_code}: ${answer.stderr}`)
    return answer.stdout
  }

  async destroy(id: string): Promise<void> {
    await this.call('DELETE', `/v1/capsules/${id}`)
  }

  async journal(id: string): Promise<JournalRecord> {
    return JSON.parse(await readFile(join(this.dir, 'journal', `${id}.json`), 'utf8'))
  }

  /** Of the host agent that runs now: its supervisor starts it anew when it dies. */
  async hostAgentPid(): Promise<number> {
    const record: { children: { name: string; pid: number }[] } = JSON.parse(
      await readFile(join(this.dir, 'run/up.json'), 'utf8'),
    )
    const child = record.children.find(({ name }) => /host/.test(name))
    if (child === undefined) throw new Error('The platform has no host agent at the moment.')
    return child.pid
  }

  /** The capsule's guest agent, called past our stack. */
  async direct(id: string): Promise<DirectGuest> {
    const { resources, secret } = await this.journal(id)
    return new DirectGuest(resources.guestAddress, secret)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy()
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    await wrenn(['down', '--stop-capsules', '--dir', this.dir], this.#cli)
    await exited
  }
}

/** Ends the platform of a directory in the middle of anything, and removes the directory if asked to. */
export async function stopPlatform(dir: string, clean: boolean, cli = CLI): Promise<void> {
  await wrenn(['down', '--stop-capsules', '--dir', dir], cli)
  if (clean) await cleanDir(dir, cli)
}

/** Runs `end`, once, when this process is told to stop, and stops it then. */
export function endOnSignal(end: () => Promise<unknown>): void {
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    process.once(signal, () => void end().finally(() => process.exit(code)))
  }
}

/** Removes a directory and everything on the machine that belongs to it. */
export async function cleanDir(dir: string, cli = CLI): Promise<void> {
  await wrenn(['clean', '--yes', '--dir', dir], cli)
  await rm(dir, { recursive: true, force: true })
}

async function wrenn(args: readonly string[], cli: string): Promise<void> {
  await promisify(execFile)(process.execPath, [cli, ...args], { env: platformEnv({}) })
}

/** Names, addresses and uids of its own, so that a platform beside it on the machine is not in the way. */
export function platformEnv(extra: Readonly<Record<string, string>>): Record<string, string | undefined> {
  return {
    // A sparse file: only what is written counts, and a guest that has touched 8 GiB fits.
    WRENN_POOL_SIZE_MIB: '24576',
    WRENN_INSTANCE: 'wbench',
    WRENN_NETWORK_CIDR: '10.206.0.0/16',
    WRENN_UID_BASE: '80000',
    ...process.env,
    WRENN_DIR: undefined,
    DATABASE_URL: undefined,
    ...extra,
  }
}

function isReady(message: unknown): message is Ready {
  return typeof message === 'object' && message !== null && 'event' in message && message.event === 'ready'
}
