import { open, readFile, stat } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError, errorText, isErrno, isRunning, type Logger, settleAll, silentLogger, UndoStack } from '@wrenn/base'
import type { Confinement, Engine, EngineName, Hardware, RestoreOptions, Vm, VmRecord, VmSpec } from '../engine.js'
import { type Accelerator, qemuArguments } from './command-line.js'
import { ConsoleTail } from './console.js'
import { countOomKills, lastWords } from './exit-cause.js'
import { makeKernelStub } from './kernel-stub.js'
import { type ChildExit, type Launched, launch, offerSocket } from './launch.js'
import { configureMigration, loadDeviceState } from './migration.js'
import { killProcess, sampleProcess } from './process.js'
import { QemuProgram } from './program.js'
import { QmpClient } from './qmp.js'
import { type RunFiles, removeSockets, runFiles } from './run-dir.js'
import { putFile, readTail } from './safe-file.js'
import { QemuVm, type QemuVmParts } from './vm.js'

/** What runs guests unless told otherwise. */
export const DEFAULT_QEMU = 'qemu-system-x86_64'
const KVM_DEVICE = '/dev/kvm'
/** QEMU connects within 30 ms on an idle machine; the rest is for one that is not. */
const START_DEADLINE_MS = 20_000
const LOG_TAIL_BYTES = 4_096
const MIB = 1024 * 1024
/** What QEMU says when it has read a device state and does not take it. */
const LOAD_REFUSED = 'load of migration failed'
/**
 * Cap of TCG's translation buffer, which is filled as far as the guest runs new code. Measured with a 512 MiB guest:
 * private memory 98 MiB after a boot with a cap of 64, 128 and 1024 MiB, 66 MiB with 32; 42 MiB after a restore with any.
 * So the cap costs nothing at rest and bounds a hostile guest.
 */
const DEFAULT_TCG_BUFFER_MIB = 128

/** Which QEMU and how. The version is read anew when the program's file changes, so that an upgrade needs no restart. */
export interface QemuEngineOptions {
  readonly accelerator: Accelerator
  /** Absolute path, or a name on the system's path. @default 'qemu-system-x86_64' */
  readonly binary?: string | undefined
  /** Cap of TCG's buffer of translated code, per guest. @default 128 */
  readonly tcgBufferMib?: number
  readonly logger?: Logger
}

/** Guests in QEMU processes, with KVM or with emulated CPUs. Starting one needs root; the process itself has no privileges. */
export function createQemuEngine(options: QemuEngineOptions): Engine {
  return new QemuEngine(options)
}

interface Started {
  readonly record: VmRecord
  readonly qmp: QmpClient
  readonly child: Launched
  readonly owner: Confinement
  readonly oomKillsBefore: number
}

class QemuEngine implements Engine {
  readonly name: EngineName
  readonly #accelerator: Accelerator
  readonly #program: QemuProgram
  readonly #tcgBufferMib: number
  readonly #logger: Logger

  constructor(options: QemuEngineOptions) {
    this.name = options.accelerator === 'kvm' ? 'qemu-kvm' : 'qemu-tcg'
    this.#accelerator = options.accelerator
    this.#program = new QemuProgram(options.binary ?? DEFAULT_QEMU, options.accelerator)
    this.#tcgBufferMib = options.tcgBufferMib ?? DEFAULT_TCG_BUFFER_MIB
    this.#logger = options.logger ?? silentLogger
  }

  version(): Promise<string> {
    return this.#program.version()
  }

  newHardware(): Promise<Hardware> {
    return this.#program.newHardware()
  }

  obstacle(hardware: Hardware): Promise<string | undefined> {
    return this.#program.obstacle(hardware)
  }

  async boot(spec: VmSpec): Promise<Vm> {
    await makeMemoryFile(spec)
    await prepareRunDir(spec)
    await using undo = new UndoStack()
    const started = await this.#start(spec, 'boot', undo)
    await this.#orLastWords(spec, started.child.exited, started.qmp.execute('cont'))
    return this.#take(started, undo)
  }

  async restore(spec: VmSpec, { statePath, paused = false }: RestoreOptions): Promise<Vm> {
    await checkMemory(spec)
    const stub = makeKernelStub(spec.kernel.kernelPath, runFiles(spec.runDir).kernelStub, spec.confinement)
    const [state] = await settleAll([readDeviceState(statePath), stub, prepareRunDir(spec)])
    await using undo = new UndoStack()
    const started = await this.#start(spec, 'incoming', undo)
    await this.#orLastWords(spec, started.child.exited, loadDeviceState(started.qmp, spec.runDir, state))
    if (!paused) await this.#orLastWords(spec, started.child.exited, started.qmp.execute('cont'))
    return this.#take(started, undo)
  }

  async adopt(record: VmRecord): Promise<Vm | undefined> {
    if (!(await isRunning({ pid: record.pid, startTicks: record.pidStartTicks }))) return undefined
    const oomKillsBefore = await countOomKills(record.cgroups)
    let qmp: QmpClient
    try {
      qmp = await QmpClient.connect(runFiles(record.runDir).monitorSocket)
    } catch (error) {
      if (!(await isRunning({ pid: record.pid, startTicks: record.pidStartTicks }))) return undefined
      throw error
    }
    const vm = this.#view({ record, qmp, child: undefined, owner: undefined, oomKillsBefore })
    await vm.checkStopped()
    return vm
  }

  #take(started: Started, undo: UndoStack): Vm {
    undo.move()
    return this.#view(started)
  }

  #view(parts: Omit<QemuVmParts, 'console' | 'logger'>): QemuVm {
    const console = new ConsoleTail(runFiles(parts.record.runDir).consoleTail)
    return new QemuVm({ ...parts, console, logger: this.#logger })
  }

  /** Starts QEMU with stopped vCPUs and negotiates; `undo` gets everything that must go when a later step fails. */
  async #start(spec: VmSpec, start: 'boot' | 'incoming', undo: UndoStack): Promise<Started> {
    const files = runFiles(spec.runDir)
    const oomKillsBefore = await countOomKills(spec.confinement.cgroups)
    await using offer = await offerSocket(files.bootSocket, spec.confinement)
    await undo.defer(() => removeSockets(files))
    const child = await launch({
      command: [this.#program.path, ...this.#arguments(spec, start)],
      confinement: spec.confinement,
      network: spec.network,
      groups: this.#accelerator === 'kvm' ? [(await stat(KVM_DEVICE)).gid] : [],
      logPath: files.engineLog,
    })
    const sample = await sampleProcess(child.pid)
    if (sample) await undo.defer(() => killProcess({ pid: child.pid, startTicks: sample.startTicks }))
    const qmp = await this.#orLastWords(spec, child.exited, offer.accepted.then(QmpClient.over))
    await undo.defer(() => qmp.close())
    await this.#orLastWords(spec, child.exited, configureMigration(qmp))
    return {
      record: this.#record(spec, child.pid, sample?.startTicks ?? ''),
      qmp,
      child,
      owner: spec.confinement,
      oomKillsBefore,
    }
  }

  #arguments(spec: VmSpec, start: 'boot' | 'incoming'): string[] {
    return qemuArguments(spec, { accelerator: this.#accelerator, tcgBufferMib: this.#tcgBufferMib, start })
  }

  #record(spec: VmSpec, pid: number, pidStartTicks: string): VmRecord {
    const { id, hardware, runDir, confinement } = spec
    return { engine: this.name, hardware, id, pid, pidStartTicks, runDir, cgroups: confinement.cgroups }
  }

  /** Waits for a step of the start; when QEMU ends or hangs instead, says what it wrote last. */
  async #orLastWords<T>(spec: VmSpec, exited: Promise<ChildExit>, step: Promise<T>): Promise<T> {
    const timer = new AbortController()
    const ended = exited.then(() => Promise.reject(new AppError('engine_failure', 'QEMU ended while it was started')))
    const late = delay(START_DEADLINE_MS, undefined, { signal: timer.signal }).then(() =>
      Promise.reject(new AppError('engine_failure', `QEMU did not come up within ${START_DEADLINE_MS} ms`)),
    )
    for (const loser of [ended, late, step]) loser.catch(() => {}) // only the first of them counts
    try {
      return await Promise.race([step, ended, late])
    } catch (cause) {
      throw await this.#startFailure(runFiles(spec.runDir), exited, cause)
    } finally {
      timer.abort()
    }
  }

  /** A QEMU that gives up closes its sockets first, so its exit status and last words may come a moment later. */
  async #startFailure(files: RunFiles, exited: Promise<ChildExit>, cause: unknown): Promise<AppError> {
    const exit = await Promise.race([exited, delay(500, undefined)])
    const log = (await readTail(files.engineLog, LOG_TAIL_BYTES)).toString('utf8')
    const message = `${errorText(cause)}; its last words: ${lastWords(log)}`
    const code = log.includes(LOAD_REFUSED) ? 'state_not_loadable' : 'engine_failure'
    return new AppError(code, message, { cause, details: { engine: this.name, ...exit } })
  }
}

/** A fresh, sparse file for the guest's RAM that only QEMU's uid can open. */
async function makeMemoryFile(spec: VmSpec): Promise<void> {
  try {
    await using file = await open(spec.memoryPath, 'w', 0o600)
    await file.truncate(spec.memoryMib * MIB)
    await file.chown(spec.confinement.uid, spec.confinement.gid)
  } catch (cause) {
    const code = isErrno(cause, 'ENOSPC', 'EDQUOT') ? 'disk_full' : 'engine_failure'
    throw new AppError(code, `The guest's memory file cannot be made: ${errorText(cause)}.`, { cause })
  }
}

/** Nothing of an earlier guest in the same directory may be mistaken for this one's. */
async function prepareRunDir({ runDir }: VmSpec): Promise<void> {
  const files = runFiles(runDir)
  await settleAll([removeSockets(files), putFile(files.consoleTail, Buffer.alloc(0))])
}

/** QEMU would make a missing memory file itself and resume into empty RAM. */
async function checkMemory(spec: VmSpec): Promise<void> {
  const memory = await sizeOf(spec.memoryPath)
  if (memory !== spec.memoryMib * MIB) {
    const found = memory === undefined ? 'is missing' : `has ${memory} bytes`
    const message = `The memory file ${spec.memoryPath} ${found}; this guest needs exactly ${spec.memoryMib} MiB.`
    throw new AppError('engine_failure', message)
  }
}

async function readDeviceState(statePath: string): Promise<Buffer> {
  const state = await readFile(statePath).catch((error: unknown) => {
    if (isErrno(error, 'ENOENT')) return Buffer.alloc(0)
    throw error
  })
  if (state.length === 0) throw new AppError('engine_failure', `The device state ${statePath} is missing or empty.`)
  return state
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
    throw error
  }
}
