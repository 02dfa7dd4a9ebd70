import type { GuestUser } from '../identity/users.js'
import type { OutputKind } from './output-chunk.js'
import type { ProcessTree } from './process-tree.js'
import type { ProcessEnd } from './started-child.js'

/** A process to be, with all defaults resolved. */
export interface LaunchSpec {
  readonly cmd: string
  readonly args: readonly string[]
  /** Whole: nothing of the agent's own is added. */
  readonly env: Readonly<Record<string, string>>
  /** Absolute; was checked for the user. */
  readonly cwd: string
  readonly user: GuestUser
  readonly pty: TerminalSize | undefined
  /** Whether it can be written to; else it reads the end at once. */
  readonly stdin: boolean
}

/** In characters, 1 to 65535: the kernel keeps 16 bits (ioctl_tty(2), `struct winsize`). */
export interface TerminalSize {
  readonly cols: number
  readonly rows: number
}

/** Who hears of a launched process. Chunks are the listener's: they are not written to again. */
export interface ProcessListener {
  onOutput(kind: OutputKind, chunk: Buffer): void
  /** The main process has exited and all it wrote was delivered. */
  onExit(end: ProcessEnd): void
}

/** A running process behind pipes or a terminal. */
export interface LaunchedProcess {
  readonly tree: ProcessTree
  /** Begins to deliver output and, at last, the exit. */
  start(listener: ProcessListener): void
  /** Reads no more of its output, so that the process waits once its pipe is full. */
  pause(): void
  resume(): void
  /** Resolves when the process's side has taken the bytes. @throws AppError `invalid_state` when its input is closed. */
  write(input: 'stdin' | 'pty', data: Uint8Array): Promise<void>
  /**
   * Ends its input when all that was written before has gone.
   * @throws AppError `invalid_state` in a terminal, which wants ^D
   */
  closeStdin(): Promise<void>
  /** @throws AppError `invalid_state` without a terminal */
  resize(size: TerminalSize): void
  /** Reports the end, by SIGKILL, of a process that was killed and that the kernel does not let go. */
  abandon(): void
  /** Lets go of what outlives the process: pipes held by background children, its cgroup. */
  release(): void
}
