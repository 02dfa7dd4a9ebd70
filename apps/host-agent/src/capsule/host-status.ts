import { availableParallelism, freemem, totalmem } from 'node:os'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { AppError } from '@wrenn/base'
import type { GetHostResponseSchema } from '@wrenn/protocol/host'
import type { Machine } from './machine.js'
import type { CapsuleManager } from './manager.js'
import type { HotPool } from './pool/hot-pool.js'

const STARTING = 'The host agent is starting.'
/** Images take minutes to prepare, everything else a second or two. */
const RETRY_AFTER_SEC = 2

/** What the host says about itself, and whether a create would work on it. */
export class HostStatus {
  readonly #startedAtMs = Date.now()
  readonly #hostId: string
  readonly #agentVersion: string
  #parts:
    | {
        readonly machine: Machine
        readonly manager: CapsuleManager
        readonly hotPool: HotPool
        readonly engineReason: string
      }
    | undefined
  #notReadyReason: string | undefined = STARTING

  constructor(hostId: string, agentVersion: string) {
    this.#hostId = hostId
    this.#agentVersion = agentVersion
  }

  /** From now on the machine's own facts are part of the answer. */
  attach(parts: { machine: Machine; manager: CapsuleManager; hotPool: HotPool; engineReason: string }): void {
    this.#parts = parts
  }

  get notReadyReason(): string | undefined {
    return this.#notReadyReason
  }

  /** `undefined` means ready. */
  setNotReady(reason: string | undefined): void {
    this.#notReadyReason = reason
  }

  /** The answer to a call that cannot be served yet. */
  refusal(): AppError {
    const reason = this.#notReadyReason ?? STARTING
    const message = reason === STARTING ? STARTING : `${STARTING} ${reason}`
    return new AppError('host_unavailable', message, { details: { retryAfterSec: RETRY_AFTER_SEC } })
  }

  /** The answer of GetHost; given while the host is starting too, then without what is not known yet. */
  async read(): Promise<MessageInitShape<typeof GetHostResponseSchema>> {
    const basics = {
      hostId: this.#hostId,
      agentVersion: this.#agentVersion,
      cpus: availableParallelism(),
      memoryBytes: BigInt(totalmem()),
      memoryAvailableBytes: BigInt(freemem()),
      ready: this.#notReadyReason === undefined,
      notReadyReason: this.#notReadyReason ?? '',
      startedAtMs: BigInt(this.#startedAtMs),
    }
    if (this.#parts === undefined) return basics
    const { machine, manager, hotPool, engineReason } = this.#parts
    const usage = await machine.pool.usage()
    return {
      ...basics,
      engine: machine.engine.name,
      engineVersion: await machine.engine.version(),
      engineReason,
      poolBytes: BigInt(Math.round(usage.totalBytes)),
      poolFreeBytes: BigInt(Math.round(usage.freeBytes)),
      poolFilesystem: machine.pool.filesystem,
      pools: hotPool.status().map(({ shape, hot, target }) => ({
        template: shape.template,
        vcpus: shape.vcpus,
        memoryMib: shape.memoryMib,
        hot,
        target,
        snapshot: true,
      })),
      runningCapsules: manager.list().filter((record) => record.state === 'running').length,
    }
  }
}
