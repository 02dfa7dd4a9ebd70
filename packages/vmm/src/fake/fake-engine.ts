import { createHash, randomBytes } from 'node:crypto'
import { chown, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { AppError, errorText, isErrno } from '@wrenn/base'
import type {
  Engine,
  EngineName,
  Hardware,
  RestoreOptions,
  SavedState,
  Vm,
  VmExit,
  VmExitCause,
  VmRecord,
  VmSpec,
  VmState,
  VmStats,
} from '../engine.js'

const MIB = 1024 * 1024
/** Guest RAM that the fake uses: JSON at the start of the memory file. */
const RAM_BYTES = 64 * 1024
const STATE_MARK = 'wrenn fake device state'
/** What guests of the fake engine have. */
export const FAKE_HARDWARE: Hardware = { machine: 'fake-1', cpu: 'fake', layout: 1 }

/** A guest of the fake engine, seen from inside: its RAM is the start of the memory file, so a clone carries it along. */
export class FakeVmGuest {
  readonly spec: VmSpec
  readonly record: VmRecord
  readonly exited: Promise<VmExit>
  state: 'running' | 'paused'
  /** Runs before the vCPUs stop or go on; what it throws is the engine's refusal. */
  readonly faults: { pause?: () => Promise<void>; resume?: () => Promise<void> } = {}
  balloonMib: number
  console = ''
  /** The answer of `exited`, as soon as there is one. */
  exit: VmExit | undefined
  readonly #settle: (exit: VmExit) => void

  constructor(spec: VmSpec, record: VmRecord, state: 'running' | 'paused') {
    this.spec = spec
    this.record = record
    this.state = state
    this.balloonMib = spec.memoryMib
    let settle: (exit: VmExit) => void = () => {}
    this.exited = new Promise((resolve) => {
      settle = resolve
    })
    this.#settle = settle
  }

  /** Writes into guest RAM, as a program in the guest would. */
  async writeRam(content: Readonly<Record<string, unknown>>): Promise<void> {
    if (this.exit || this.state !== 'running') throw new Error('a stopped guest writes nothing')
    const text = Buffer.from(JSON.stringify(content).padEnd(RAM_BYTES, ' '))
    await using file = await open(this.spec.memoryPath, 'r+')
    await file.write(text, 0, text.length, 0)
  }

  /** What `writeRam` wrote last, here or in the guest that the file was cloned from; `{}` before. */
  async readRam(): Promise<Readonly<Record<string, unknown>>> {
    await using file = await open(this.spec.memoryPath, 'r')
    const { buffer } = await file.read(Buffer.alloc(RAM_BYTES), 0, RAM_BYTES, 0)
    const text = buffer.toString('utf8').replaceAll('\0', '').trim()
    return text === '' ? {} : JSON.parse(text)
  }

  /** Ends the guest, from inside or by force. */
  end(cause: VmExitCause, message = `The fake guest ended: ${cause}.`): VmExit {
    if (this.exit) return this.exit
    const signal = cause === 'killed' || cause === 'oom_killed' ? 'SIGKILL' : undefined
    const exitCode = signal === undefined ? 0 : undefined
    this.exit = { cause, message, exitCode, signal, consoleTail: this.console, atMs: Date.now() }
    this.#settle(this.exit)
    return this.exit
  }
}

/** Where fake guests live. Engines that share one see each other's guests, as two host agents on one machine do. */
export class FakeMachine {
  readonly guests = new Map<number, FakeVmGuest>()
  #nextPid = 1_000_000_000 // beyond every real process id

  /** Adds a guest with a pid of its own; pids are beyond every real one, so that nothing of the host is ever taken for it. */
  start(spec: VmSpec, state: 'running' | 'paused'): FakeVmGuest {
    const pid = this.#nextPid++
    const { id, hardware, runDir, confinement } = spec
    const startTicks = randomBytes(4).readUInt32BE().toString()
    const record: VmRecord = {
      engine: 'fake',
      hardware,
      id,
      pid,
      pidStartTicks: startTicks,
      runDir,
      cgroups: confinement.cgroups,
    }
    const guest = new FakeVmGuest(spec, record, state)
    this.guests.set(pid, guest)
    return guest
  }

  /** The living guest of a record. */
  find(record: VmRecord): FakeVmGuest | undefined {
    const guest = this.guests.get(record.pid)
    return guest?.record.pidStartTicks === record.pidStartTicks && !guest.exit ? guest : undefined
  }
}

/** What a test controls of the fake: its guests, its version, and what happens when one starts. */
export interface FakeEngineOptions {
  /** Give two engines the same to play a restart of the host agent. @default one of its own */
  readonly machine?: FakeMachine
  /** What the engine claims to be. @default 'fake 1' */
  readonly version?: string
  /** Machine types it has, the best for new guests first. @default ['fake-1'] */
  readonly machines?: readonly string[]
  /** Called for each guest as it starts, such as to serve a guest agent for it. */
  readonly onStart?: (guest: FakeVmGuest) => void | Promise<void>
}

/** An engine without processes, for tests of what is above it; its files are real and a snapshot is what it should be. */
export function createFakeEngine(options: FakeEngineOptions = {}): FakeEngine {
  return new FakeEngine(options)
}

/** The class behind {@link createFakeEngine}: a test reaches guests by `machine` and plays an upgrade by `installed`. */
export class FakeEngine implements Engine {
  readonly name: EngineName = 'fake'
  readonly machine: FakeMachine
  /** Both may change at any time, as when another version is installed. */
  installed: { readonly version: string; readonly machines: readonly string[] }
  readonly #options: FakeEngineOptions

  constructor(options: FakeEngineOptions) {
    this.#options = options
    this.machine = options.machine ?? new FakeMachine()
    this.installed = { version: options.version ?? 'fake 1', machines: options.machines ?? [FAKE_HARDWARE.machine] }
  }

  version(): Promise<string> {
    return Promise.resolve(this.installed.version)
  }

  newHardware(): Promise<Hardware> {
    return Promise.resolve({ ...FAKE_HARDWARE, machine: this.installed.machines[0] ?? '' })
  }

  obstacle({ machine }: Hardware): Promise<string | undefined> {
    const { version, machines } = this.installed
    return Promise.resolve(machines.includes(machine) ? undefined : `${version} has no machine type ${machine}`)
  }

  async boot(spec: VmSpec): Promise<Vm> {
    await requireFiles(spec)
    const { uid, gid } = spec.confinement
    await using file = await open(spec.memoryPath, 'w', 0o600)
    await file.truncate(spec.memoryMib * MIB)
    await chown(spec.memoryPath, uid, gid)
    return await this.#start(spec, 'running')
  }

  async restore(spec: VmSpec, { statePath, paused = false }: RestoreOptions): Promise<Vm> {
    await requireFiles(spec)
    const obstacle = await this.obstacle(spec.hardware)
    if (obstacle !== undefined) throw new AppError('state_not_loadable', `The device state does not load: ${obstacle}.`)
    const memory = await stat(spec.memoryPath).catch(() => undefined)
    if (memory?.size !== spec.memoryMib * MIB) throw failure(`The memory file ${spec.memoryPath} is missing or cut.`)
    const state = await readFile(statePath, 'utf8').catch(() => '')
    if (!state.startsWith(STATE_MARK)) throw failure(`The device state ${statePath} is missing or damaged.`)
    return this.#start(spec, paused ? 'paused' : 'running')
  }

  adopt(record: VmRecord): Promise<Vm | undefined> {
    const guest = this.machine.find(record)
    return Promise.resolve(guest ? new FakeVm(guest) : undefined)
  }

  async #start(spec: VmSpec, state: 'running' | 'paused'): Promise<Vm> {
    const guest = this.machine.start(spec, state)
    guest.console = 'The fake guest is up.\n'
    try {
      await this.#options.onStart?.(guest)
    } catch (error) {
      guest.end('engine_failure')
      throw error
    }
    return new FakeVm(guest)
  }
}

function failure(message: string): AppError {
  return new AppError('engine_failure', message)
}

async function requireFiles(spec: VmSpec): Promise<void> {
  for (const path of [spec.disk.path, ...spec.layers.map((layer) => layer.path)]) {
    await stat(path).catch((cause: unknown) => {
      throw failure(`The fake engine cannot open ${path}: ${errorText(cause)}.`)
    })
  }
}

class FakeVm implements Vm {
  readonly id: string
  readonly record: VmRecord
  readonly exited: Promise<VmExit>
  readonly #guest: FakeVmGuest

  constructor(guest: FakeVmGuest) {
    this.id = guest.record.id
    this.record = guest.record
    this.exited = guest.exited
    this.#guest = guest
  }

  status(): Promise<VmState> {
    return Promise.resolve(this.#guest.exit ? 'exited' : this.#guest.state)
  }

  async pause(): Promise<void> {
    await this.#alive().faults.pause?.()
    this.#alive().state = 'paused'
  }

  async resume(): Promise<void> {
    await this.#alive().faults.resume?.()
    this.#alive().state = 'running'
  }

  async save(statePath: string): Promise<SavedState> {
    const begin = performance.now()
    if (this.#alive().state === 'running') throw new AppError('invalid_state', 'Pause the guest before saving it.')
    const content = `${STATE_MARK} ${this.#guest.balloonMib}\n`
    const beside = `${statePath}.tmp`
    try {
      await writeFile(beside, content)
      await rename(beside, statePath)
    } catch (cause) {
      await rm(beside, { force: true })
      const code = isErrno(cause, 'ENOSPC', 'EDQUOT') ? 'disk_full' : 'engine_failure'
      throw new AppError(code, `Device state was not saved to ${statePath}: ${errorText(cause)}.`, { cause })
    }
    const sha256 = createHash('sha256').update(content).digest('hex')
    return { bytes: content.length, ms: performance.now() - begin, sha256 }
  }

  async setBalloonMib(mib: number): Promise<void> {
    this.#alive().balloonMib = mib
  }

  async balloonMib(): Promise<number> {
    return this.#alive().balloonMib
  }

  async stats(): Promise<VmStats> {
    return { cpuNs: 1_000_000n, rssBytes: this.#alive().balloonMib * MIB }
  }

  consoleTail(maxBytes = RAM_BYTES): Promise<string> {
    return Promise.resolve(maxBytes <= 0 ? '' : this.#guest.console.slice(-maxBytes))
  }

  kill(): Promise<VmExit> {
    return Promise.resolve(this.#guest.end('killed', 'The guest was ended on request.'))
  }

  detach(): Promise<void> {
    return Promise.resolve()
  }

  #alive(): FakeVmGuest {
    if (this.#guest.exit) throw new AppError('guest_died', `Guest ${this.id} has ended.`)
    return this.#guest
  }
}
