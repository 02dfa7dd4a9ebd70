import { closeSync, constants, fchmodSync, fchownSync, openSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { GuestUser } from '../identity/users.js'
import type { TerminalSize } from './launched-process.js'

interface PtyModule {
  open(cols: number, rows: number): { master: number; slave: number; pty: string }
  resize(fd: number, cols: number, rows: number): void
}

/** A pseudo-terminal between its opening and the start of its process. The numbers are descriptors of the agent. */
export interface Terminal {
  /** Of the other side, such as `/dev/pts/3`. */
  readonly path: string
  readonly master: number
  /** The agent's own handle of the other side: while it is open, output that waits in the terminal survives its writers. */
  readonly slave: number
  /** Opens a handle for a process; to be closed by who opens it. */
  openTheirs(): number
  resize(size: TerminalSize): void
  /** Closes the slave side; the master belongs to who reads it. */
  close(): void
  /** To be called when the master is closed. */
  forget(): void
  /** Closes both sides of a terminal that got no process. */
  discard(): void
}

/** Pseudo-terminals by the native module, loaded when the first one is wanted. */
export class NativePty {
  readonly #path: string
  readonly #masters = new Set<number>()
  #module: PtyModule | undefined

  constructor(path: string) {
    this.#path = path
  }

  open(size: TerminalSize, user: GuestUser): Terminal {
    const native = this.#load()
    const opened = native.open(size.cols, size.rows)
    // Opened anew for close-on-exec, and non-blocking so that writing the end marker cannot hang a stopped terminal.
    const slave = openSync(opened.pty, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK)
    closeSync(opened.slave)
    fchownSync(slave, user.uid, user.gid)
    fchmodSync(slave, 0o620)
    this.#masters.add(opened.master)
    return {
      path: opened.pty,
      master: opened.master,
      slave,
      // One of its own: starting a process makes the descriptor blocking, and ours must not become so with it.
      openTheirs: () => openSync(opened.pty, constants.O_RDWR | constants.O_NOCTTY),
      resize: ({ cols, rows }) => native.resize(opened.master, cols, rows),
      close: () => closeSync(slave),
      forget: () => this.#masters.delete(opened.master),
      discard: () => {
        closeSync(slave)
        closeSync(opened.master)
        this.#masters.delete(opened.master)
      },
    }
  }

  /**
   * The module opens masters without close-on-exec. For every descriptor from 3 on that a child would inherit, the entry of
   * `stdio` that puts `/dev/null` there instead: no process may hold another one's terminal.
   */
  coverInherited(nullFd: number): (number | 'ignore')[] {
    if (this.#masters.size === 0) return []
    const highest = Math.max(...this.#masters)
    return Array.from({ length: highest - 2 }, (_, index) => (this.#masters.has(index + 3) ? nullFd : 'ignore'))
  }

  #load(): PtyModule {
    this.#module ??= createRequire(import.meta.url)(this.#path) as PtyModule
    return this.#module
  }
}
