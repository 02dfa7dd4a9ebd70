import { writeSync } from 'node:fs'
import { ReadStream } from 'node:tty'
import { AppError, isErrno } from '@wrenn/base'
import { randomHex } from '../system/random.js'
import type { CgroupTree } from './cgroup.js'
import type { LaunchedProcess, ProcessListener, TerminalSize } from './launched-process.js'
import type { Terminal } from './native-pty.js'
import type { ProcessTree } from './process-tree.js'
import { KILLED, type ProcessEnd, type StartedChild } from './started-child.js'

/** How long a terminal that takes no end marker may stay silent after its process ended: it was stopped, or hung up. */
const STOPPED_IDLE_MS = 500
/**
 * The same of one that took it. Then it comes, behind all output, unless a process has thrown away what waited there; on a busy machine the
 * kernel may carry it over late.
 */
const MARKER_IDLE_MS = 5_000
/** More than a terminal can hold: output beyond it comes from a background process that floods. */
const MARKER_BYTES = 256 * 1024

/**
 * A process behind a terminal. A terminal has no end of file that comes after all output, so when the process has exited the
 * agent writes a random marker into the terminal's other side: it comes out after everything the process wrote.
 */
export class PtyProcess implements LaunchedProcess {
  readonly tree: ProcessTree
  readonly #child: StartedChild
  readonly #terminal: Terminal
  readonly #cgroups: CgroupTree | undefined
  readonly #stream: ReadStream
  readonly #marker = Buffer.from(`\x1b]7777;${randomHex(12)}\x07`)
  #listener: ProcessListener | undefined
  #exit: ProcessEnd | undefined
  #held: Buffer = Buffer.alloc(0)
  #afterExitBytes = 0
  #markerWritten = 0
  #idle: NodeJS.Timeout | undefined
  #isPaused = false
  #isDone = false

  constructor(child: StartedChild, tree: ProcessTree, terminal: Terminal, cgroups: CgroupTree | undefined) {
    this.tree = tree
    this.#child = child
    this.#terminal = terminal
    this.#cgroups = cgroups
    this.#stream = new ReadStream(terminal.master)
  }

  start(listener: ProcessListener): void {
    this.#listener = listener
    this.#stream.on('error', () => this.#finish())
    this.#stream.once('close', () => this.#terminal.forget())
    this.#stream.on('data', (chunk: Buffer) => this.#take(chunk))
    void this.#child.ended.then((end) => this.#exited(end))
  }

  abandon(): void {
    this.#exited(KILLED)
  }

  #exited(exit: ProcessEnd): void {
    if (this.#exit !== undefined) return
    this.#exit = exit
    this.#await()
  }

  pause(): void {
    if (this.#isPaused || this.#isDone) return
    this.#isPaused = true
    this.#stopWaiting()
    this.#stream.pause()
  }

  resume(): void {
    if (!this.#isPaused || this.#isDone) return
    this.#isPaused = false
    this.#stream.resume()
    if (this.#exit !== undefined) this.#await()
  }

  write(_input: 'stdin' | 'pty', data: Uint8Array): Promise<void> {
    if (this.#isDone || !this.#stream.writable) return Promise.reject(gone())
    return new Promise((resolve, reject) => {
      const abandoned = (): void => reject(gone())
      this.#stream.once('close', abandoned)
      this.#stream.write(data, (error) => {
        this.#stream.off('close', abandoned)
        if (error) reject(gone())
        else resolve()
      })
    })
  }

  async closeStdin(): Promise<void> {
    throw new AppError('invalid_state', `Process ${this.tree.pid} has a terminal; send ^D to end its input.`)
  }

  resize(size: TerminalSize): void {
    if (!this.#isDone) this.#terminal.resize(size)
  }

  release(): void {
    this.#stream.destroy()
  }

  #take(chunk: Buffer): void {
    if (this.#exit === undefined) this.#listener?.onOutput('pty', chunk)
    else this.#takeAfterExit(chunk)
  }

  #takeAfterExit(chunk: Buffer): void {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    this.#afterExitBytes += chunk.length
    const at = this.#held.indexOf(this.#marker)
    const ready = at >= 0 ? at : Math.max(0, this.#held.length - this.#marker.length)
    this.#release(ready)
    if (at >= 0) this.#finish()
    else if (this.#afterExitBytes > MARKER_BYTES) this.#giveUp()
    else if (!this.#isPaused) this.#await()
  }

  #release(length: number): void {
    if (length === 0) return
    this.#listener?.onOutput('pty', this.#held.subarray(0, length))
    this.#held = this.#held.subarray(length)
  }

  /** Writes what is left of the marker and waits for it, or for silence. */
  #await(): void {
    if (this.#isDone) return
    this.#writeMarker()
    this.#stopWaiting()
    // Who was held up hears of time before output: what can be read is read between timers and immediates.
    const whenRead = (): void => {
      if (this.#idle === idle) this.#giveUp()
    }
    const isOnItsWay = this.#markerWritten === this.#marker.length
    const idle = setTimeout(() => setImmediate(whenRead), isOnItsWay ? MARKER_IDLE_MS : STOPPED_IDLE_MS)
    this.#idle = idle
  }

  #stopWaiting(): void {
    clearTimeout(this.#idle)
    this.#idle = undefined
  }

  #writeMarker(): void {
    if (this.#markerWritten >= this.#marker.length) return
    try {
      this.#markerWritten += writeSync(this.#terminal.slave, this.#marker, this.#markerWritten)
    } catch (error) {
      // A full terminal takes it when some output was read, a stopped or hung-up one never: then silence ends the wait.
      if (!isErrno(error, 'EAGAIN', 'EIO')) throw error
    }
  }

  #giveUp(): void {
    // A part of the marker that did get through is not output.
    const partial =
      this.#markerWritten < this.#marker.length ? this.#marker.subarray(0, this.#markerWritten) : this.#marker
    const at = partial.length === 0 ? -1 : this.#held.indexOf(partial)
    this.#release(at >= 0 ? at : this.#held.length)
    this.#finish()
  }

  #finish(): void {
    if (this.#isDone || this.#exit === undefined) return
    this.#isDone = true
    this.#stopWaiting()
    this.#terminal.close()
    this.#stream.destroy()
    if (this.tree.cgroup !== undefined) this.#cgroups?.remove(this.tree.cgroup)
    this.#listener?.onExit(this.#exit)
  }
}

function gone(): AppError {
  return new AppError('invalid_state', 'The terminal of this process is closed.')
}
