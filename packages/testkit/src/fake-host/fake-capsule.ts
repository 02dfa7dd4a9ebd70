import { mkdir, rm, stat } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { AppError } from '@wrenn/base'
import type { CapsuleState } from '@wrenn/protocol'
import type { ProcessSelector } from '@wrenn/protocol/guest'
import type {
  CapsuleSchema,
  CheckpointSchema,
  CreateCapsuleRequest,
  DestinationSchema,
  ListDestinationsResponseSchema,
  RefusalSchema,
  StartProcessRequest,
} from '@wrenn/protocol/host'
import type { FakeCapture } from './fake-capture.js'
import { FakeFiles } from './fake-files.js'
import { FakeProcess } from './fake-process.js'

export interface FakeExit {
  readonly cause: string
  readonly message: string
  readonly consoleTail?: string
}

/** What a resume starts from. */
export interface FakeSaved {
  readonly generation: number
  /** 0: not yet. */
  readonly durableAtMs: number
  /** Kept of a durable one only: an undurable one is used up by its resume. */
  readonly capture: FakeCapture | undefined
}

export interface FakeCheckpoint {
  readonly capture: FakeCapture
  /** As the RPC shows it. */
  readonly record: MessageInitShape<typeof CheckpointSchema> & { readonly checkpointId: string }
}

/** One capsule of the fake host. */
export class FakeCapsule {
  readonly id: string
  readonly files: FakeFiles
  processes: FakeProcess[] = []
  readonly createdAtMs = Date.now()
  request: CreateCapsuleRequest | undefined
  state: CapsuleState = 'starting'
  exit: (FakeExit & { readonly atMs: number }) | undefined
  path: 'hot' | 'restore' = 'hot'
  parentId = ''
  snapshotId = ''
  lastActiveAtMs = Date.now()
  /** Open streams of clients. */
  streams = 0
  /** Lifecycle calls under way. */
  operations = 0

  pauseReason = ''
  pausedAtMs = 0
  saves = 0
  saved: FakeSaved | undefined
  /** The newest durable state, older than `saved`. */
  fallback: FakeSaved | undefined
  notice = ''
  /** Of the fetch that brought it here. */
  wakeAttempt = 0n
  /** The state in the store that it goes back to while it has no durable one here; empty: it came whole. */
  loadedFrom = ''
  /** As what the state of this save is in the store. */
  storedAs: { readonly stateId: string; readonly saves: number; readonly attempt: bigint } | undefined
  readonly checkpoints = new Map<string, FakeCheckpoint>()
  /** The checkpoint made or rolled back to last: the parent of the next. */
  standsOn = ''
  readonly #tunnels = new Set<Socket>()
  /** What a test says that it was refused. */
  refusals: MessageInitShape<typeof RefusalSchema>[] = []
  /** What a test says that it used. */
  destinations: MessageInitShape<typeof DestinationSchema>[] = []
  lifecycleTimings: { readonly step: string; readonly ms: number }[] = []
  #use = new AbortController()

  private constructor(id: string, files: FakeFiles) {
    this.id = id
    this.files = files
  }

  static async create(id: string, dir: string): Promise<FakeCapsule> {
    const files = new FakeFiles(dir)
    await mkdir(files.home, { recursive: true })
    await mkdir(join(dir, 'tmp'), { recursive: true })
    return new FakeCapsule(id, files)
  }

  learned(): MessageInitShape<typeof ListDestinationsResponseSchema> {
    const learns = this.request?.egress?.learn === true
    return { destinations: learns ? this.destinations : [], isComplete: true }
  }

  /** A host agent that ends has what rules set in memory alone: what it says next is that it has no policy yet. */
  forgetRules(): void {
    const { request } = this
    if (request?.egress === undefined || request.egress.rules.length === 0) return
    this.request = { ...request, egress: { ...request.egress, rules: [] }, egressRevision: 0n }
  }

  /** @throws AppError `guest_died`, `invalid_state` */
  usable(): this {
    if (this.exit !== undefined) throw new AppError('guest_died', this.exit.message)
    if (this.state !== 'running') throw new AppError('invalid_state', `The capsule is ${this.state}, not running.`)
    this.lastActiveAtMs = Date.now()
    return this
  }

  /** Aborts, with the error for its streams, when this run of the guest ends in a pause or a rollback. */
  get use(): AbortSignal {
    return this.#use.signal
  }

  /** It breaks off with this run of the guest. */
  keepTunnel(service: Socket): void {
    this.#tunnels.add(service)
    service.once('close', () => this.#tunnels.delete(service))
  }

  #breakTunnels(): void {
    for (const service of this.#tunnels) service.destroy()
  }

  endUse(error: AppError): void {
    this.#breakTunnels()
    this.#use.abort(error)
    this.#use = new AbortController()
  }

  freeze(): void {
    for (const process of this.processes) process.freeze()
  }

  thaw(): void {
    for (const process of this.processes) process.run()
  }

  run(): void {
    this.state = 'running'
    this.exit = undefined
    this.thaw()
  }

  async killProcesses(): Promise<void> {
    await Promise.all(this.processes.map((process) => process.kill()))
  }

  async start({ start, user }: StartProcessRequest): Promise<FakeProcess> {
    const config = start?.process
    if (config === undefined || config.cmd === '')
      throw new AppError('invalid_request', 'start.process.cmd is required.')
    if (user !== '' && user !== 'root') throw new AppError('invalid_request', `There is no user ${user}.`)
    const cwd = this.files.locate(config.cwd || this.request?.defaultCwd || '.')
    if (!(await stat(cwd).catch(() => undefined))?.isDirectory()) {
      throw new AppError('invalid_request', `cwd: there is no directory ${config.cwd ?? ''}.`)
    }
    if (start?.tag !== undefined && this.processes.some((other) => other.running && other.options.tag === start.tag)) {
      throw new AppError('conflict', `The tag ${start.tag} is in use.`)
    }
    this.usable() // looking at the folder took a moment
    const size = start?.pty?.size
    const process = new FakeProcess({
      cmd: config.cmd,
      args: config.args,
      envs: { ...this.request?.envs, ...config.envs },
      cwd,
      tag: start?.tag,
      stdin: start?.stdin ?? true,
      timeoutMs: start?.timeoutMs ?? 0,
      pty: size && { cols: size.cols, rows: size.rows },
      foreground: start?.foreground ?? false,
    })
    this.processes.push(process.run())
    return process
  }

  /** @throws AppError `process_not_found` */
  find(selector: ProcessSelector | undefined): FakeProcess {
    const wanted = selector?.selector
    const found = this.processes.findLast((process) =>
      wanted?.case === 'pid' ? process.pid === wanted.value : process.options.tag === wanted?.value,
    )
    if (found === undefined) throw new AppError('process_not_found', `There is no process ${wanted?.value ?? ''}.`)
    return found
  }

  die(exit: FakeExit): void {
    this.#breakTunnels()
    this.state = 'error'
    this.exit = { ...exit, atMs: Date.now() }
    void this.killProcesses()
  }

  async dispose(): Promise<void> {
    this.#breakTunnels()
    await this.killProcesses()
    const checkpoints = [...this.checkpoints.values()].map(({ capture }) => capture)
    for (const kept of [this.saved?.capture, this.fallback?.capture, ...checkpoints]) await kept?.dispose()
    await rm(this.files.root, { recursive: true, force: true })
  }

  get hasDurable(): boolean {
    return this.fallback !== undefined || this.saved?.capture !== undefined
  }

  message(): MessageInitShape<typeof CapsuleSchema> {
    const { request, exit } = this
    return {
      capsuleId: this.id,
      state: this.state,
      template: request?.template ?? 'minimal',
      vcpus: request?.vcpus ?? 1,
      memoryMib: request?.memoryMib ?? 512,
      diskSizeMib: request?.diskSizeMib ?? 1024,
      engine: 'fake',
      engineVersion: '1',
      kernelVersion: '0.0.0-fake',
      agentVersion: '0.1.0',
      path: this.path,
      timings: [{ step: 'claim', ms: 0.5 }],
      createdAtMs: BigInt(this.createdAtMs),
      generation: request?.generation ?? 1n,
      guestAddress: '10.201.0.2',
      lastActiveAtMs: BigInt(this.lastActiveAtMs),
      teamId: request?.teamId ?? '',
      pauseReason: this.pauseReason,
      pausedAtMs: BigInt(this.pausedAtMs),
      savedGeneration: BigInt(this.saved?.generation ?? 0),
      durableAtMs: BigInt(this.saved?.durableAtMs ?? 0),
      notice: this.notice,
      diskBytes: 4096n,
      parentId: this.parentId,
      snapshotId: this.snapshotId,
      checkpointId: this.standsOn,
      egressRevision: request?.egressRevision ?? 0n,
      wakeAttempt: this.wakeAttempt,
      loadedFrom: this.loadedFrom,
      loadedFromNeeded: this.loadedFrom !== '' && !this.hasDurable,
      lifecycleTimings: [...this.lifecycleTimings],
      ...(exit === undefined
        ? {}
        : {
            exit: {
              cause: exit.cause,
              message: exit.message,
              consoleTail: exit.consoleTail ?? '',
              atMs: BigInt(exit.atMs),
            },
          }),
    }
  }
}
