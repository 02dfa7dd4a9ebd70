import { type ChildProcessByStdio, spawn } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import type { Tools } from './tools.js'

const NS_PER_SECOND = 1_000_000_000n
const ANSWER_TIMEOUT_MS = 2_000

/**
 * The drive's `set-clock`, running and waiting: it takes 16 bytes (seconds, nanoseconds) and answers one, 0 when the clock is
 * set. Made by the host agent's image store.
 */
export class ClockSetter {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  #answer: ((ok: boolean) => void) | undefined

  private constructor(path: string) {
    this.#child = spawn(path, { stdio: ['pipe', 'pipe', 'ignore'], env: {} })
    this.#child.stdout.on('data', (bytes: Buffer) => this.#settle(bytes[0] === 0))
    const gone = (): void => this.#settle(false)
    this.#child.once('error', gone).once('exit', gone)
    this.#child.stdin.on('error', gone)
  }

  /** `undefined` where the drive has no such program. */
  static start(tools: Tools): ClockSetter | undefined {
    const path = tools.program('set-clock')
    return path === undefined ? undefined : new ClockSetter(path)
  }

  /** False when it could not; another way must be taken then. */
  async set(ns: bigint): Promise<boolean> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return false
    const time = Buffer.alloc(16)
    time.writeBigInt64LE(ns / NS_PER_SECOND, 0)
    time.writeBigInt64LE(ns % NS_PER_SECOND, 8)
    return await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => this.#settle(false), ANSWER_TIMEOUT_MS)
      this.#answer = (ok) => {
        clearTimeout(timer)
        resolve(ok)
      }
      this.#child.stdin.write(time)
    })
  }

  #settle(ok: boolean): void {
    const answer = this.#answer
    this.#answer = undefined
    answer?.(ok)
  }
}
