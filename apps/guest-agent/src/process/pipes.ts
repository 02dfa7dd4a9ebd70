import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, fchownSync, mkdirSync, openSync, rmSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { AppError, errorText } from '@wrenn/base'
import type { GuestUser } from '../identity/users.js'
import type { Tools } from '../system/tools.js'

const BATCH = 128
const LOW_WATER = 16

/** A pipe with a name, for as long as its process is being started. Whoever starts the process opens the other end by it. */
export interface NamedPipe {
  /** In the pool's directory. */
  readonly name: string
  /** The agent's end; never blocks. Closed by who uses it. */
  readonly ours: number
  /** Opens the process's end for a process of `user`; it blocks as programs expect. To be closed by who opens it. */
  openTheirs(user: GuestUser): number
  /** Takes the name away: the pipe is then only what is open of it. */
  forget(): void
}

/** Makes pipes of these names in the pool's directory; false when it cannot. */
export type PipeMaker = (names: readonly string[]) => boolean

/**
 * Real pipes for the processes. Node itself would give them socket pairs, on which opening `/dev/stdout` or `/dev/stderr`
 * fails with ENXIO, as scripts often do. A pipe comes from a FIFO made ahead of time: open both ends, unlink the name.
 */
export class PipePool {
  readonly #dir: string
  readonly #tools: Tools
  /** The directory, held open. */
  #fd: number | undefined
  #names: string[] = []
  #made = 0
  #refill: Promise<void> | undefined
  /** Spares the making of a process, where there is one. */
  maker: PipeMaker | undefined

  /** `dir` should not be on the user's disk: each pipe takes a name and an inode for a moment. */
  constructor(dir: string, tools: Tools) {
    this.#dir = join(dir, 'pipes')
    this.#tools = tools
  }

  async prepare(): Promise<void> {
    rmSync(this.#dir, { recursive: true, force: true })
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 })
    this.#fd = openSync(this.#dir, constants.O_RDONLY | constants.O_DIRECTORY)
    await this.#fill(this.#fd)
  }

  /** The directory, held open: a descriptor of the agent. */
  get directoryFd(): number {
    if (this.#fd === undefined) throw new AppError('internal', 'The pool of pipes is closed.')
    return this.#fd
  }

  /** A pipe the process writes and the agent reads. */
  async forOutput(): Promise<NamedPipe> {
    const name = await this.#take()
    const ours = openSync(this.#path(name), constants.O_RDONLY | constants.O_NONBLOCK)
    return this.#named(name, ours, constants.O_WRONLY, () => {})
  }

  /** A pipe the agent writes and the process reads. */
  async forInput(): Promise<NamedPipe> {
    const name = await this.#take()
    // A non-blocking reader lets the writer open; a blocking one for the process follows, and the first goes.
    const opener = openSync(this.#path(name), constants.O_RDONLY | constants.O_NONBLOCK)
    const ours = openSync(this.#path(name), constants.O_WRONLY | constants.O_NONBLOCK)
    return this.#named(name, ours, constants.O_RDONLY, () => closeSync(opener))
  }

  /** Both ends of one pipe without a name, which block; each to be closed by who uses it. */
  async pair(): Promise<{ readonly reader: number; readonly writer: number }> {
    const path = this.#path(await this.#take())
    const opener = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const writer = openSync(path, constants.O_WRONLY)
    const reader = openSync(path, constants.O_RDONLY)
    closeSync(opener)
    unlinkSync(path)
    return { reader, writer }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
    rmSync(this.#dir, { recursive: true, force: true })
  }

  #named(name: string, ours: number, flags: number, close: () => void): NamedPipe {
    const path = this.#path(name)
    return {
      name,
      ours,
      openTheirs: (user) => {
        const theirs = openSync(path, flags)
        if (user.uid !== 0) fchownSync(theirs, user.uid, user.gid)
        return theirs
      },
      forget: () => {
        close()
        unlinkSync(path)
      },
    }
  }

  /** Leads to the directory whatever is mounted over its name. */
  #path(name: string): string {
    return `${heldPath(this.directoryFd)}/${name}`
  }

  async #take(): Promise<string> {
    const fd = this.directoryFd
    if (this.#names.length < LOW_WATER) this.#refill ??= this.#fill(fd).finally(() => (this.#refill = undefined))
    // With some left, whether more can be made is no concern of this process.
    if (this.#names.length === 0) await this.#refill
    else this.#refill?.catch(() => undefined)
    const name = this.#names.pop()
    if (name === undefined) throw new AppError('internal', 'No pipe could be made for the process.')
    return name
  }

  async #fill(fd: number): Promise<void> {
    const names = Array.from({ length: BATCH }, () => String(this.#made++))
    if (this.maker?.(names) !== true) await this.#fillByProgram(fd, names)
    this.#names.push(...names)
  }

  async #fillByProgram(fd: number, names: readonly string[]): Promise<void> {
    const [program = 'mkfifo', ...args] = [...this.#tools.applet('mkfifo'), '-m', '600', ...names]
    const child = spawn(program, args, { stdio: 'ignore', env: {}, cwd: heldPath(fd) })
    const [code] = await once(child, 'exit').catch((error: unknown) => {
      throw new AppError('guest_error', `No process can be started: ${errorText(error)}.`)
    })
    if (code !== 0) throw new AppError('internal', `mkfifo failed in ${this.#dir} (exit code ${code}).`)
  }
}

function heldPath(fd: number): string {
  return `/proc/self/fd/${fd}`
}
