import { mkdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { AppError } from '@wrenn/base'
import type { ProcessSelector } from '@wrenn/protocol/guest'
import type { CapsuleSchema, CreateCapsuleRequest, StartProcessRequest } from '@wrenn/protocol/host'
import { FakeFiles } from './fake-files.js'
import { FakeProcess } from './fake-process.js'

export interface FakeExit {
  readonly cause: string
  readonly message: string
  readonly consoleTail?: string
}

/** One capsule of the fake host. */
export class FakeCapsule {
  readonly id: string
  readonly files: FakeFiles
  readonly processes: FakeProcess[] = []
  readonly createdAtMs = Date.now()
  request: CreateCapsuleRequest | undefined
  state: 'starting' | 'running' | 'error' = 'starting'
  exit: (FakeExit & { readonly atMs: number }) | undefined

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

  /** @throws AppError `guest_died`, `invalid_state` */
  usable(): this {
    if (this.exit !== undefined) throw new AppError('guest_died', this.exit.message)
    if (this.state !== 'running') throw new AppError('invalid_state', `The capsule is ${this.state}, not running.`)
    return this
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
    })
    this.processes.push(process)
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
    this.state = 'error'
    this.exit = { ...exit, atMs: Date.now() }
    for (const process of this.processes) process.kill()
  }

  async dispose(): Promise<void> {
    for (const process of this.processes) process.kill()
    await rm(this.files.root, { recursive: true, force: true })
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
      path: 'hot',
      timings: [{ step: 'claim', ms: 0.5 }],
      createdAtMs: BigInt(this.createdAtMs),
      generation: request?.generation ?? 1n,
      guestAddress: '10.201.0.2',
      teamId: request?.teamId ?? '',
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
