import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError, errorText, isErrno, isRunning, type Logger, type ProcessId } from '@wrenn/base'
import type { SavedState, Vm, VmExit, VmRecord, VmState, VmStats } from '../engine.js'
import type { ConsoleTail } from './console.js'
import { countOomKills, judgeExit, oopsOf } from './exit-cause.js'
import type { ChildExit, Launched } from './launch.js'
import { fetchDeviceState, runState, settledRunState } from './migration.js'
import { killProcess, processGone, processOwner, sampleProcess } from './process.js'
import type { QmpClient, QmpEvent } from './qmp.js'
import { removeSockets, runFiles } from './run-dir.js'
import { putFile, readTail } from './safe-file.js'

/** How long QEMU may take to leave after a guest that ended by itself, before it is killed. */
const QUIT_GRACE_MS = 2_000
const ENGINE_LOG_TAIL_BYTES = 4_096
/** How often a handle that was dropped, of a process that is not our child, looks whether it is still there. */
const DETACHED_POLL_MS = 500
/** How long a guest that found the host's disk full waits before it tries its write again. */
const DISK_FULL_RETRY_MS = 5_000
const MIB = 1024 * 1024

/** QEMU stops a guest in this run state instead of failing its write when the host's disk is full. */
const DISK_FULL_STATE = 'io-error'

/** Run states in which QEMU only waits to be collected. */
const ENDED_STATES = ['shutdown', 'guest-panicked', 'internal-error']

/** What a view of a guest is made of. The monitor's connection belongs to the view from then on. */
export interface QemuVmParts {
  readonly record: VmRecord
  readonly qmp: QmpClient
  readonly console: ConsoleTail
  readonly logger: Logger
  /** The process when it is our child; an adopted one is watched through /proc. */
  readonly child: Launched | undefined
  /** Who the process is, when we started it. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined
  /** Count of OOM kills when the handle was made. */
  readonly oomKillsBefore: number
}

/** A guest in a QEMU process. */
export class QemuVm implements Vm {
  readonly id: string
  readonly record: VmRecord
  readonly exited: Promise<VmExit>
  readonly #parts: QemuVmParts
  readonly #qmp: QmpClient
  readonly #process: ProcessId
  /** Device state of the present stop. QEMU saves a stopped guest once only, and it cannot change until the guest runs. */
  #deviceState: Buffer | undefined
  #endReason: string | undefined
  #killRequested = false
  #detached = false
  #pausedByCaller = false
  #exit: VmExit | undefined

  constructor(parts: QemuVmParts) {
    this.id = parts.record.id
    this.record = parts.record
    this.#parts = parts
    this.#qmp = parts.qmp
    this.#process = { pid: parts.record.pid, startTicks: parts.record.pidStartTicks }
    parts.qmp.onEvent((event) => this.#onEvent(event))
    this.exited = this.#watch()
  }

  async status(): Promise<VmState> {
    if (this.#exit) return 'exited'
    try {
      const state = await runState(this.#qmp)
      if (ENDED_STATES.includes(state)) return 'exited'
      return state === 'running' ? 'running' : 'paused'
    } catch (error) {
      if (!(await isRunning(this.#process))) return 'exited'
      throw error
    }
  }

  async pause(): Promise<void> {
    this.#pausedByCaller = true
    await this.#qmp.execute('stop')
  }

  async resume(): Promise<void> {
    this.#pausedByCaller = false
    if ((await settledRunState(this.#qmp)) === 'running') return
    this.#deviceState = undefined
    await this.#qmp.execute('cont')
  }

  async save(statePath: string): Promise<SavedState> {
    const begin = performance.now()
    const state = await this.#stoppedState()
    await putFile(statePath, state).catch((cause: unknown) => {
      const code = isErrno(cause, 'ENOSPC', 'EDQUOT') ? 'disk_full' : 'engine_failure'
      throw new AppError(code, `Device state was not saved to ${statePath}: ${errorText(cause)}.`, { cause })
    })
    const sha256 = createHash('sha256').update(state).digest('hex')
    return { bytes: state.length, ms: performance.now() - begin, sha256 }
  }

  async setBalloonMib(mib: number): Promise<void> {
    await this.#qmp.execute('balloon', { value: mib * MIB })
  }

  async balloonMib(): Promise<number> {
    const answer = await this.#qmp.execute('query-balloon')
    if (typeof answer !== 'object' || answer === null || !('actual' in answer))
      throw new Error('query-balloon: no actual')
    return Math.round(Number(answer.actual) / MIB)
  }

  async stats(): Promise<VmStats> {
    const sample = await sampleProcess(this.#process.pid)
    if (sample?.startTicks !== this.#process.startTicks) {
      throw new AppError('guest_died', `Guest ${this.id} has ended, so there is nothing to measure.`)
    }
    return { cpuNs: sample.cpuNs, rssBytes: sample.rssBytes }
  }

  async consoleTail(maxBytes?: number): Promise<string> {
    await this.#drainConsole()
    return this.#parts.console.text(maxBytes)
  }

  async kill(): Promise<VmExit> {
    if (!this.#exit) {
      await this.#drainConsole()
      this.#killRequested = this.#endReason === undefined
      await killProcess(this.#process)
    }
    return this.exited
  }

  async detach(): Promise<void> {
    if (!this.#exit) await this.#drainConsole()
    this.#detached = true
    this.#parts.child?.release()
    this.#qmp.close()
  }

  async #stoppedState(): Promise<Buffer> {
    if (this.#deviceState) return this.#deviceState
    const state = await runState(this.#qmp)
    if (state !== 'paused' && state !== DISK_FULL_STATE) {
      const hint =
        state === 'running' ? 'Pause the guest before saving it' : 'Resume and pause the guest before saving it'
      throw new AppError('invalid_state', `${hint}; it is in QEMU's state ${state}.`)
    }
    const owner = this.#parts.owner ?? (await processOwner(this.#process.pid))
    if (!owner) throw new AppError('guest_died', `Guest ${this.id} has ended.`)
    this.#deviceState = await fetchDeviceState(this.#qmp, this.record.runDir, owner)
    return this.#deviceState
  }

  #onEvent({ event, data }: QmpEvent): void {
    if (event === 'SHUTDOWN') this.#ending(String(data.reason))
    else if (event === 'GUEST_PANICKED') this.#ending('guest-panicked')
    else if (event === 'STOP') void this.checkStopped()
    else if (event === 'BLOCK_IO_ERROR') this.#parts.logger.warn({ vmId: this.id, ...data }, 'vm.disk_error')
  }

  /** Sees to a guest that QEMU has stopped by itself; such a one may also be found by adoption. */
  async checkStopped(): Promise<void> {
    const state = await runState(this.#qmp).catch(() => 'gone') // the exit is noticed by its own watch
    if (ENDED_STATES.includes(state)) this.#ending(state)
    if (state === DISK_FULL_STATE) void this.#retryAfterDiskFull()
  }

  /** The write that found no space is repeated when the guest goes on, so nothing is lost once there is space again. */
  async #retryAfterDiskFull(): Promise<void> {
    this.#parts.logger.warn({ vmId: this.id }, 'vm.disk_full')
    await delay(DISK_FULL_RETRY_MS, undefined, { ref: false })
    if (this.#exit || this.#detached || this.#pausedByCaller) return
    const state = await runState(this.#qmp).catch(() => 'gone')
    if (state === DISK_FULL_STATE) await this.#qmp.execute('cont').catch(() => {}) // it may just have ended
  }

  #ending(reason: string): void {
    if (this.#endReason !== undefined) return
    this.#endReason = reason
    if (!reason.startsWith('host-')) void this.#collect()
  }

  /** Reads what the guest said last, then lets QEMU go. */
  async #collect(): Promise<void> {
    await this.#drainConsole()
    await this.#qmp.execute('quit').catch(() => {}) // refused or gone: the kill below settles it
    if (await processGone(this.#process, { timeoutMs: QUIT_GRACE_MS })) return
    await killProcess(this.#process).catch((error: unknown) =>
      this.#parts.logger.error({ vmId: this.id, error: errorText(error) }, 'vm.kill_failed'),
    )
  }

  async #drainConsole(): Promise<void> {
    await this.#parts.console
      .drain(this.#qmp)
      .catch((error: unknown) =>
        this.#parts.logger.debug({ vmId: this.id, error: errorText(error) }, 'vm.console_unread'),
      )
  }

  async #watch(): Promise<VmExit> {
    const child = await this.#processEnd()
    const files = runFiles(this.record.runDir)
    const [consoleTail, engineLog, oomKills] = await Promise.all([
      this.#parts.console.text().catch(() => ''), // an unreadable tail must not hide the exit
      readTail(files.engineLog, ENGINE_LOG_TAIL_BYTES).catch(() => Buffer.alloc(0)),
      countOomKills(this.record.cgroups).catch(() => 0),
    ])
    const verdict = judgeExit({
      ...child,
      killRequested: this.#killRequested,
      reason: this.#endReason,
      oomKills: oomKills - this.#parts.oomKillsBefore,
      consoleTail,
      engineLog: engineLog.toString('utf8'),
    })
    this.#exit = { ...verdict, ...child, consoleTail, atMs: Date.now() }
    this.#qmp.close()
    if (!this.#detached) await removeSockets(files).catch(() => {}) // the run directory's owner removes what is left
    this.#parts.logger.info(
      { vmId: this.id, cause: verdict.cause, exitCode: child.exitCode, signal: child.signal },
      'vm.exited',
    )
    if (verdict.cause === 'guest_panic') {
      this.#parts.logger.warn({ vmId: this.id, oops: oopsOf(consoleTail) }, 'vm.panicked')
    }
    return this.#exit
  }

  async #processEnd(): Promise<ChildExit> {
    if (this.#parts.child) return this.#parts.child.exited
    await this.#qmp.closed
    await processGone(this.#process, this.#detached ? { intervalMs: DETACHED_POLL_MS, ref: false } : {})
    return { exitCode: undefined, signal: undefined }
  }
}
