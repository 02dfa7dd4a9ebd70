import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { createConnectTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { HostService } from '@wrenn/protocol/host'
import type { HostClient } from '@wrenn/testkit'
import { eventually } from '../../e2e/harness/wait.js'
import type { Site } from './site.js'

const READY_TIMEOUT_MS = 600_000
const LOG_TAIL_LINES = 12

export type StepAction = 'kill' | 'fail' | 'stop'

/** The built host agent as a process of its own, which tests end as they like. */
export class HostAgent implements AsyncDisposable {
  readonly #site: Site
  readonly #log: string
  #child: ChildProcess | undefined
  #sessions: Http2SessionManager | undefined
  #client: HostClient | undefined

  constructor(site: Site) {
    this.#site = site
    this.#log = join(site.artefacts, 'host-agent.log')
  }

  get client(): HostClient {
    if (this.#client === undefined) throw new Error('The host agent was not started.')
    return this.#client
  }

  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error('The host agent was not started.')
    return this.#child.pid
  }

  /** Starts it and waits until it takes commands. */
  async start(env: Readonly<Record<string, string>> = {}): Promise<void> {
    const { artefacts, dir } = this.#site
    const log = await open(this.#log, 'a')
    const child = spawn(process.execPath, [join(artefacts, 'apps/host-agent/dist/main.mjs')], {
      env: { ...this.#site.env, ...env },
      stdio: ['ignore', log.fd, log.fd],
    })
    await log.close()
    this.#child = child
    this.#connect(join(dir, 'run', 'host-agent.sock'))
    await eventually(
      () => `the host agent to be ready:\n${this.logTail()}`,
      async () => {
        if (child.exitCode !== null) throw new Error(`The host agent ended by itself:\n${this.logTail()}`)
        const host = await this.client.getHost({}).catch(() => undefined) // it is starting
        return host?.ready === true ? true : undefined
      },
      READY_TIMEOUT_MS,
    )
  }

  /** Makes the next one who reaches `step` do `action`. */
  async arm(step: string, action: StepAction): Promise<void> {
    const beside = `${this.#site.stepFile}.new`
    await writeFile(beside, `${step} ${action}\n`)
    await rename(beside, this.#site.stepFile) // the host agent may look at any moment
  }

  /** Whether nobody has reached the step yet. */
  isArmed(): boolean {
    return existsSync(this.#site.stepFile)
  }

  async disarm(): Promise<void> {
    await rm(this.#site.stepFile, { force: true })
  }

  /** Resolves when the process has stopped at a step. */
  async stopped(): Promise<void> {
    await eventually('the host agent to stop at the step', () =>
      readFileSync(`/proc/${this.pid}/stat`, 'utf8').includes(') T ') ? true : undefined,
    )
  }

  goOn(): void {
    process.kill(this.pid, 'SIGCONT')
  }

  /** Resolves when the process has ended; gives what ended it. */
  async ended(): Promise<string> {
    const child = this.#child
    if (child === undefined) return 'not started'
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    this.#sessions?.abort()
    return child.signalCode ?? String(child.exitCode)
  }

  async signal(name: NodeJS.Signals): Promise<void> {
    this.#child?.kill(name)
    await this.ended()
  }

  async restart(env: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.signal('SIGKILL')
    await this.start(env)
  }

  logTail(): string {
    return readFileSync(this.#log, 'utf8').trimEnd().split('\n').slice(-LOG_TAIL_LINES).join('\n')
  }

  /** The journal, as the next start would read it. */
  async record(capsuleId: string): Promise<JournalRecord> {
    return JSON.parse(await readFile(join(this.#site.dir, 'journal', `${capsuleId}.json`), 'utf8'))
  }

  /** Ends what loads a capsule's memory. */
  async killLoader(capsuleId: string): Promise<void> {
    const { files } = await this.record(capsuleId)
    const mark = join(this.#site.dir, 'pool/capsules', capsuleId, String(files), 'mem.loading')
    process.kill(JSON.parse(await readFile(mark, 'utf8')).pid, 'SIGKILL')
  }

  /** Ends all capsules and stops. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.disarm()
    await this.signal('SIGUSR2')
  }

  #connect(socket: string): void {
    this.#sessions?.abort()
    this.#sessions = new Http2SessionManager('http://host', undefined, { createConnection: () => connect(socket) })
    const options = { httpVersion: '2', baseUrl: 'http://host', sessionManager: this.#sessions } as const
    this.#client = createClient(HostService, createConnectTransport(options))
  }
}

/** What the audit reads of a journal's record. */
export interface JournalRecord {
  readonly capsuleId: string
  readonly state: string
  readonly files: number
  readonly fallback?: number
  readonly bootId: string
  readonly durableAtMs?: number
  readonly stored?: { readonly stateId: string; readonly attempt: number }
  readonly resources?: { readonly vmId: string; readonly vm?: { readonly pid: number } }
  readonly other?: { readonly vmId: string; readonly vm?: { readonly pid: number } }
}
