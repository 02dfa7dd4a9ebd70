import { type ChildProcess, spawn } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import { getSystemErrorName } from 'node:util'
import { AppError } from '@wrenn/base'
import type { Tools } from './tools.js'

const FRAME_BYTES = 1024
const HEADER_BYTES = 64
/** Where the program keeps a frame's data, for arguments that are addresses. */
export const DATA_ADDRESS = 0x600040n
/** What one call may send along. */
export const MAX_DATA_BYTES = FRAME_BYTES - HEADER_BYTES

/** A system call that Node has no function for. */
export interface KernelCall {
  /** Number of the system call, x86-64. */
  readonly number: number
  readonly args: readonly (number | bigint)[]
  /** Put at `DATA_ADDRESS`. @default nothing */
  readonly data?: Uint8Array
  /** How many bytes from `DATA_ADDRESS` on are wanted back. @default 0 */
  readonly answerBytes?: number
}

/** What the kernel said. */
export interface KernelAnswer {
  /** Its return value; a negated errno has become an error before. */
  readonly result: number
  readonly data: Buffer
}

interface Waiting {
  readonly bytes: number
  settle(answer: Buffer | undefined): void
}

/**
 * The drive's `kernel-caller`, running and waiting: system calls that Node.js has no function for, made in order. Made by the
 * host agent's image store, which describes its frames.
 */
export class KernelCalls {
  readonly #child: ChildProcess
  readonly #input: Writable
  #waiting: Waiting[] = []
  #received: Buffer[] = []
  #receivedBytes = 0
  #isGone = false

  private constructor(path: string, descriptors: readonly number[]) {
    const child = spawn(path, { stdio: ['pipe', 'pipe', 'ignore', ...descriptors], env: {} })
    const gone = (): void => this.#end()
    child.once('error', gone).once('exit', gone)
    this.#child = child
    this.#input = required(child.stdin).on('error', gone)
    const output: Readable = required(child.stdout)
    output.on('data', (bytes: Buffer) => this.#receive(bytes))
  }

  /** With `descriptors` as the program's 3, 4, …; `undefined` where the drive has no such program. */
  static start(tools: Tools, descriptors: readonly number[]): KernelCalls | undefined {
    const path = tools.program('kernel-caller')
    return path === undefined ? undefined : new KernelCalls(path, descriptors)
  }

  /** False once the program has ended; its calls fail then, and another one must be started. */
  get isAlive(): boolean {
    return !this.#isGone
  }

  /** @throws AppError `guest_error` with the kernel's error name */
  async make(what: string, call: KernelCall): Promise<KernelAnswer> {
    const bytes = await this.#exchange(call)
    if (bytes === undefined) throw new AppError('guest_error', `${what}: the program for system calls has ended.`)
    const result = Number(bytes.readBigInt64LE(0))
    if (result < 0) throw new AppError('guest_error', `${what}: ${getSystemErrorName(result)}`)
    return { result, data: bytes.subarray(HEADER_BYTES) }
  }

  #exchange(call: KernelCall): Promise<Buffer | undefined> {
    if (this.#isGone) return Promise.resolve(undefined)
    const bytes = HEADER_BYTES + (call.answerBytes ?? 0)
    return new Promise((settle) => {
      this.#waiting.push({ bytes, settle })
      this.#input.write(frameOf(call, bytes))
    })
  }

  #receive(bytes: Buffer): void {
    this.#received.push(bytes)
    this.#receivedBytes += bytes.length
    for (let next = this.#waiting[0]; next && this.#receivedBytes >= next.bytes; next = this.#waiting[0]) {
      const all = Buffer.concat(this.#received)
      this.#received = [all.subarray(next.bytes)]
      this.#receivedBytes -= next.bytes
      this.#waiting.shift()
      next.settle(all.subarray(0, next.bytes))
    }
  }

  #end(): void {
    this.#isGone = true
    this.#child.kill('SIGKILL')
    for (const { settle } of this.#waiting.splice(0)) settle(undefined)
  }
}

function frameOf({ number, args, data }: KernelCall, answerBytes: number): Buffer {
  const frame = Buffer.alloc(FRAME_BYTES)
  for (const [index, value] of [number, ...args].entries()) frame.writeBigInt64LE(BigInt(value), index * 8)
  frame.writeUInt32LE(answerBytes, 56)
  if (data !== undefined) frame.set(data, HEADER_BYTES)
  return frame
}

function required<T>(stream: T | null): T {
  if (stream === null) throw new Error('a child with pipes has no pipe')
  return stream
}
