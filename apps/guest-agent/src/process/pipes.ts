import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, fchownSync, mkdirSync, openSync, rmSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { AppError, errorText } from '@wrenn/base'
import type { GuestUser } from '../identity/users.js'
import type { Tools } from '../system/tools.js'

const BATCH = 128
const LOW_WATER = 16

/** Both ends of one pipe, descriptors of the agent; each is closed by who uses it. */
export interface PipeEnds {
  /** The agent's end; never blocks. */
  readonly ours: number
  /** The process's end; blocks as programs expect. */
  readonly theirs: number
}

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

  /** A pipe the process writes and the agent reads. */
  async forOutput(user: GuestUser): Promise<PipeEnds> {
    const path = await this.#take()
    const ours = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const theirs = openSync(path, constants.O_WRONLY)
    return this.#anonymous(path, { ours, theirs }, user)
  }

  /** A pipe the agent writes and the process reads. */
  async forInput(user: GuestUser): Promise<PipeEnds> {
    const path = await this.#take()
    // A non-blocking reader lets the writer open; a blocking one for the process follows, and the first goes.
    const opener = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const ours = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
    const theirs = openSync(path, constants.O_RDONLY)
    closeSync(opener)
    return this.#anonymous(path, { ours, theirs }, user)
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
    rmSync(this.#dir, { recursive: true, force: true })
  }

  #anonymous(path: string, ends: PipeEnds, user: GuestUser): PipeEnds {
    unlinkSync(path)
    if (user.uid !== 0) fchownSync(ends.theirs, user.uid, user.gid)
    return ends
  }

  async #take(): Promise<string> {
    const fd = this.#fd
    if (fd === undefined) throw new AppError('internal', 'The pool of pipes is closed.')
    if (this.#names.length < LOW_WATER) this.#refill ??= this.#fill(fd).finally(() => (this.#refill = undefined))
    // With some left, whether more can be made is no concern of this process.
    if (this.#names.length === 0) await this.#refill
    else this.#refill?.catch(() => undefined)
    const name = this.#names.pop()
    if (name === undefined) throw new AppError('internal', 'No pipe could be made for the process.')
    return join(heldPath(fd), name)
  }

  async #fill(fd: number): Promise<void> {
    const names = Array.from({ length: BATCH }, () => String(this.#made++))
    const [program = 'mkfifo', ...args] = [...this.#tools.applet('mkfifo'), '-m', '600', ...names]
    const child = spawn(program, args, { stdio: 'ignore', env: {}, cwd: heldPath(fd) })
    const [code] = await once(child, 'exit').catch((error: unknown) => {
      throw new AppError('guest_error', `No process can be started: ${errorText(error)}.`)
    })
    if (code !== 0) throw new AppError('internal', `mkfifo failed in ${this.#dir} (exit code ${code}).`)
    this.#names.push(...names)
  }
}

/** Leads to the directory whatever is mounted over its name. */
function heldPath(fd: number): string {
  return `/proc/self/fd/${fd}`
}
