import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { errorText, starterLayout } from '@wrenn/base'
import type { NativePty } from '../process/native-pty.js'
import type { PipePool } from '../process/pipes.js'
import type { ProcessEnd } from '../process/started-child.js'
import { setUpScript } from './own-scripts.js'
import type { StarterState } from './process-script.js'
import { watchEnd } from './watch-end.js'

const { answerFd, endBytes } = starterLayout
const FIRST_INHERITED_FD = 3

export interface LineOptions {
  /** Path of the program, `processStarter` of @wrenn/base. */
  readonly program: string
  readonly pipes: PipePool
  /** Has descriptors that no program may inherit. */
  readonly pty: Pick<NativePty, 'coverInherited'>
}

interface Ends {
  /** Both block: making a process takes as long as the kernel does, and nothing of this agent may come between. */
  readonly scripts: number
  readonly answers: number
}

/** One running starter: scripts go out and answers come back at once; how its processes ended comes by itself. */
export class StarterLine {
  readonly state: StarterState
  readonly #child: ChildProcess
  readonly #ends: Ends
  readonly #living = new Map<number, (end: ProcessEnd) => void>()
  #rest: Buffer = Buffer.alloc(0)
  #isOpen = true

  private constructor(child: ChildProcess, ends: Ends, state: StarterState, onEnd: (reason: string) => void) {
    this.#child = child
    this.#ends = ends
    this.state = state
    child.stdout?.on('data', (bytes: Buffer) => this.#receive(bytes))
    child.once('exit', (code, signal) => {
      this.close()
      onEnd(`ended with ${signal ?? code}`)
    })
    // All that it could still tell has been read by then.
    child.once('close', () => this.#watchLiving())
  }

  /** @throws Error when it cannot run here */
  static async open(options: LineOptions, onEnd: (reason: string) => void): Promise<StarterLine> {
    const scripts = await options.pipes.pair()
    const answers = await options.pipes.pair()
    const ends = { scripts: scripts.writer, answers: answers.reader }
    try {
      const child = run(options, scripts.reader, answers.writer)
      const ownScore = readFileSync('/proc/self/oom_score_adj', 'utf8').trim()
      const setUp = setUpScript()
      const state = setUp.read(exchange(ends, setUp.bytes, setUp.answerBytes), ownScore)
      return new StarterLine(child, ends, state, onEnd)
    } catch (error) {
      closeEnds(ends)
      throw error
    }
  }

  /** How many processes it has made that live. */
  get living(): number {
    return this.#living.size
  }

  /** @throws Error when the starter has ended */
  exchange(script: Buffer, answerBytes: number): Buffer {
    try {
      return exchange(this.#ends, script, answerBytes)
    } catch (error) {
      this.close()
      throw new Error(`it takes no scripts any more: ${errorText(error)}`, { cause: error })
    }
  }

  /** Resolves when the process, just made by a script, has ended. */
  endOf(pid: number): Promise<ProcessEnd> {
    return new Promise((resolve) => this.#living.set(pid, resolve))
  }

  /** Ends the starter; its processes live on. */
  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#child.kill('SIGKILL')
    closeEnds(this.#ends)
  }

  #receive(bytes: Buffer): void {
    const all = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes])
    const whole = all.length - (all.length % endBytes)
    for (let at = 0; at < whole; at += endBytes) this.#ended(all.readInt32LE(at), all.readInt32LE(at + 8))
    this.#rest = all.subarray(whole)
  }

  /** `status` as wait(2) gives it. What could not run its program ends as well; nobody waits for that. */
  #ended(pid: number, status: number): void {
    const settle = this.#living.get(pid)
    this.#living.delete(pid)
    const signal = status & 0x7f
    settle?.(signal === 0 ? { code: (status >> 8) & 0xff, signal: null } : { code: null, signal })
  }

  /** Nobody hears any more how they end; that they have ended can be seen. */
  #watchLiving(): void {
    for (const [pid, settle] of this.#living) watchEnd(pid, () => settle({ code: null, signal: null }))
    this.#living.clear()
  }
}

/** Starts the program; `scripts` and `answers` are its ends, which are closed here. @throws what `spawn` throws */
function run({ program, pipes, pty }: LineOptions, scripts: number, answers: number): ChildProcess {
  const nothing = openSync('/dev/null', 'r+')
  try {
    const beyond = pty.coverInherited(nothing).slice(answerFd + 1 - FIRST_INHERITED_FD)
    const stdio = [scripts, 'pipe' as const, 'ignore' as const, pipes.directoryFd, answers, ...beyond]
    const child = spawn(program, [], { stdio, env: {}, cwd: '/' })
    // A program that is not there shows by its line, which is closed at once.
    child.once('error', () => {})
    return child
  } finally {
    for (const fd of [nothing, scripts, answers]) closeSync(fd)
  }
}

function exchange({ scripts, answers }: Ends, script: Buffer, answerBytes: number): Buffer {
  for (let sent = 0; sent < script.length; ) sent += writeSync(scripts, script, sent)
  const answer = Buffer.allocUnsafe(answerBytes)
  for (let got = 0; got < answerBytes; ) {
    const length = readSync(answers, answer, got, answerBytes - got, null)
    if (length === 0) throw new Error('there is no answer')
    got += length
  }
  return answer
}

function closeEnds({ scripts, answers }: Ends): void {
  closeSync(scripts)
  closeSync(answers)
}
