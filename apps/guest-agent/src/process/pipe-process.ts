import { Socket } from 'node:net'
import { AppError } from '@wrenn/base'
import type { CgroupTree } from './cgroup.js'
import type { LaunchedProcess, ProcessListener, TerminalSize } from './launched-process.js'
import type { OutputKind } from './output-chunk.js'
import { PipeReader } from './pipe-reader.js'
import type { ProcessTree } from './process-tree.js'
import { KILLED, type ProcessEnd, type StartedChild } from './started-child.js'

interface PipeDescriptors {
  readonly stdin: number | undefined
  readonly stdout: number
  readonly stderr: number
}

/**
 * A process behind pipes. Its end is reported when the main process has exited and what the pipes held at that moment was
 * delivered: everything it wrote itself. A background child that still holds the pipes does not delay the end; what it writes
 * later is read and dropped, so that it neither blocks nor dies of SIGPIPE.
 */
export class PipeProcess implements LaunchedProcess {
  readonly tree: ProcessTree
  readonly #child: StartedChild
  readonly #descriptors: PipeDescriptors
  readonly #cgroups: CgroupTree | undefined
  readonly #stdin: InputPipe | undefined
  #readers: PipeReader[] = []
  #listener: ProcessListener | undefined
  #hasExited = false

  constructor(child: StartedChild, tree: ProcessTree, descriptors: PipeDescriptors, cgroups: CgroupTree | undefined) {
    this.tree = tree
    this.#child = child
    this.#descriptors = descriptors
    this.#cgroups = cgroups
    this.#stdin = descriptors.stdin === undefined ? undefined : new InputPipe(descriptors.stdin)
  }

  start(listener: ProcessListener): void {
    this.#readers = [
      this.#reader('stdout', this.#descriptors.stdout, listener),
      this.#reader('stderr', this.#descriptors.stderr, listener),
    ]
    this.#listener = listener
    void this.#child.ended.then((end) => this.#exited(end))
  }

  abandon(): void {
    this.#exited(KILLED)
  }

  #exited(end: ProcessEnd): void {
    if (this.#hasExited) return
    for (const reader of this.#readers) reader.drain()
    this.#hasExited = true
    for (const reader of this.#readers) reader.discard()
    this.#stdin?.destroy()
    if (this.tree.cgroup !== undefined) this.#cgroups?.remove(this.tree.cgroup)
    this.#listener?.onExit(end)
  }

  pause(): void {
    if (!this.#hasExited) for (const reader of this.#readers) reader.pause()
  }

  resume(): void {
    if (!this.#hasExited) for (const reader of this.#readers) reader.resume()
  }

  async write(input: 'stdin' | 'pty', data: Uint8Array): Promise<void> {
    if (input === 'pty') throw new AppError('invalid_state', `Process ${this.tree.pid} has no terminal; send stdin.`)
    await this.#input().write(data)
  }

  async closeStdin(): Promise<void> {
    await this.#input().end()
  }

  resize(_size: TerminalSize): void {
    throw new AppError('invalid_state', `Process ${this.tree.pid} has no terminal to resize.`)
  }

  release(): void {
    // Pipes stay with their background writers until these close them.
  }

  #input(): InputPipe {
    if (this.#stdin === undefined)
      throw new AppError('invalid_state', `Process ${this.tree.pid} was started without stdin.`)
    return this.#stdin
  }

  #reader(kind: OutputKind, fd: number, listener: ProcessListener): PipeReader {
    return new PipeReader(
      fd,
      (chunk) => listener.onOutput(kind, chunk),
      () => this.#cgroups?.sweep(),
    )
  }
}

/** The writing end of a process's standard input. */
class InputPipe {
  readonly #socket: Socket

  constructor(fd: number) {
    this.#socket = new Socket({ fd, readable: false, writable: true })
    this.#socket.on('error', () => {
      // Each write reports its own failure to its caller.
    })
  }

  write(data: Uint8Array): Promise<void> {
    if (!this.#socket.writable) return Promise.reject(closed())
    return new Promise((resolve, reject) => {
      const abandoned = (): void => reject(closed())
      this.#socket.once('close', abandoned)
      this.#socket.write(data, (error) => {
        this.#socket.off('close', abandoned)
        if (error) reject(closed())
        else resolve()
      })
    })
  }

  end(): Promise<void> {
    if (!this.#socket.writable) return Promise.resolve()
    return new Promise((resolve) => {
      this.#socket.once('close', resolve)
      this.#socket.end(() => this.#socket.destroy())
    })
  }

  destroy(): void {
    this.#socket.destroy()
  }
}

function closed(): AppError {
  return new AppError('invalid_state', 'The process has closed its standard input.')
}
