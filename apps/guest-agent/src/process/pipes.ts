import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, fchownSync, mkdirSync, openSync, rmSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { AppError } from '@wrenn/base'
import type { GuestUser } from '../identity/users.js'
import type { Tools } from '../system/tools.js'

const BATCH = 128
const LOW_WATER = 16

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
  #names: string[] = []
  #made = 0
  #refill: Promise<void> | undefined

  constructor(dir: string, tools: Tools) {
    this.#dir = join(dir, 'pipes')
    this.#tools = tools
  }

  async prepare(): Promise<void> {
    rmSync(this.#dir, { recursive: true, force: true })
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 })
    await this.#fill()
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
    rmSync(this.#dir, { recursive: true, force: true })
  }

  #anonymous(path: string, ends: PipeEnds, user: GuestUser): PipeEnds {
    unlinkSync(path)
    if (user.uid !== 0) fchownSync(ends.theirs, user.uid, user.gid)
    return ends
  }

  async #take(): Promise<string> {
    if (this.#names.length < LOW_WATER) this.#refill ??= this.#fill().finally(() => (this.#refill = undefined))
    if (this.#names.length === 0) await this.#refill
    const name = this.#names.pop()
    if (name === undefined) throw new AppError('internal', 'No pipe could be made for the process.')
    return name
  }

  async #fill(): Promise<void> {
    const names = Array.from({ length: BATCH }, () => join(this.#dir, String(this.#made++)))
    const [program = 'mkfifo', ...args] = [...this.#tools.applet('mkfifo'), '-m', '600', ...names]
    const child = spawn(program, args, { stdio: 'ignore', env: {} })
    const [code] = await once(child, 'exit')
    if (code !== 0) throw new AppError('internal', `mkfifo failed in ${this.#dir} (exit code ${code}).`)
    this.#names.push(...names)
  }
}
