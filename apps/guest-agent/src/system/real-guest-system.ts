import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  write,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { promisify } from 'node:util'
import { AppError, isErrno } from '@wrenn/base'
import { type ConnectionPorts, clockErrorNs, type GuestSystem } from './guest-system.js'
import { DATA_ADDRESS, KernelCalls } from './kernel-calls.js'
import { randomHex } from './random.js'
import { TcpConnections } from './tcp-connections.js'
import { setUtf8Input } from './terminal-input.js'
import type { Tools } from './tools.js'

const writeAsync = promisify(write)

const IOCTL = 16
const SYNCFS = 306
const CLOCK_ADJTIME = 305
const CLOCK_REALTIME = 0
/** linux/timex.h: add `time`, which is in nanoseconds, to the clock; the structure's size and where `time` is in it. */
const ADJ_SETOFFSET_NANO = 0x2100
const TIMEX_BYTES = 208
const TIMEX_TIME_AT = 72
/** linux/random.h */
const RNDRESEEDCRNG = 0x5207

/** What the programs for system calls inherit, by number. */
const RANDOM = 3
const DATA = 4

const NS_PER_SECOND = 1_000_000_000n
const NS_PER_MS = 1_000_000
/** Closer than this the clock is left alone. */
const GOOD_ENOUGH_MS = 20
const DATE_ATTEMPTS = 3

interface Kernel {
  readonly calls: KernelCalls
  readonly tcp: TcpConnections
}

/** The guest this agent runs in. */
export class RealGuestSystem implements GuestSystem {
  readonly #tools: Tools
  readonly #random: number
  readonly #descriptors: readonly number[]
  #hostname: string | undefined
  #machineId: string | undefined
  #kernel: Kernel | undefined
  /** Apart from the other: a sync may take as long as the disk does. */
  #syncer: KernelCalls | undefined

  constructor(tools: Tools) {
    this.#tools = tools
    this.#random = openSync('/dev/urandom', 'r+')
    this.#descriptors = [this.#random, openSync(tools.dataDir, 'r')]
    // Started now, they wait inside the template's snapshot: after a restore no process has to be made.
    this.#kernel = this.#startKernel()
    this.#syncer = KernelCalls.start(tools, this.#descriptors)
  }

  async setClock(timestampNs: bigint, beganNs: bigint): Promise<number> {
    const error = clockErrorNs(timestampNs, beganNs)
    if (Math.abs(error) <= GOOD_ENOUGH_MS * NS_PER_MS) return error / NS_PER_MS
    const kernel = this.#livingKernel()
    if (kernel === undefined) return await this.#setByDate(timestampNs, beganNs)
    await shiftClock(kernel.calls, -BigInt(Math.round(error)))
    return clockErrorNs(timestampNs, beganNs) / NS_PER_MS
  }

  setHostname(hostname: string): void {
    // The same as before is no news: what the capsule's owner made of these files since then stays.
    if (hostname === this.#hostname) return
    writeFileSync('/proc/sys/kernel/hostname', hostname)
    writeText('/etc/hostname', `${hostname}\n`)
    writeText('/etc/hosts', hostsWith(hostname, readIfPresent('/etc/hosts')))
    this.#hostname = hostname
  }

  setMachineId(machineId: string): void {
    if (machineId === this.#machineId) return
    writeText('/etc/machine-id', `${machineId}\n`)
    this.#machineId = machineId
  }

  async addEntropy(bytes: Uint8Array): Promise<void> {
    writeSync(this.#random, bytes)
    // The kernel would use it at its next reseeding only, up to a minute later.
    const call = { number: IOCTL, args: [RANDOM, RNDRESEEDCRNG, 0] }
    await this.#livingKernel()?.calls.make('reseeding', call)
  }

  async dropConnections(kept: ConnectionPorts): Promise<void> {
    await this.#livingKernel()?.tcp.drop(kept)
  }

  async setUtf8Input(path: string): Promise<void> {
    const kernel = this.#livingKernel()
    try {
      if (kernel !== undefined) await setUtf8Input(kernel.calls, path)
      else await this.#run([...this.#tools.applet('stty'), '-F', path, 'iutf8'])
    } catch (error) {
      // A terminal that edits by bytes is better than none.
      if (!AppError.is(error, 'guest_error')) throw error
    }
  }

  async sync(): Promise<void> {
    if (this.#syncer?.isAlive === false) this.#syncer = KernelCalls.start(this.#tools, this.#descriptors)
    if (this.#syncer !== undefined) await this.#syncer.make('syncing the disk', { number: SYNCFS, args: [DATA] })
    else await this.#run(this.#tools.applet('sync'))
  }

  async dropCaches(): Promise<void> {
    const fd = openSync('/proc/sys/vm/drop_caches', 'w')
    try {
      // In the background: with much cached it takes a while.
      await writeAsync(fd, '1\n')
    } finally {
      closeSync(fd)
    }
  }

  #startKernel(): Kernel | undefined {
    const calls = KernelCalls.start(this.#tools, this.#descriptors)
    return calls && { calls, tcp: new TcpConnections(calls) }
  }

  #livingKernel(): Kernel | undefined {
    if (this.#kernel?.calls.isAlive === false) this.#kernel = this.#startKernel()
    return this.#kernel
  }

  /** For machines without the program for system calls. */
  async #setByDate(timestampNs: bigint, beganNs: bigint): Promise<number> {
    let error = clockErrorNs(timestampNs, beganNs)
    // `date` takes a while to start; what it was late by last time is added the next time.
    let latencyNs = 0n
    for (let attempt = 0; attempt < DATE_ATTEMPTS && Math.abs(error) > GOOD_ENOUGH_MS * NS_PER_MS; attempt++) {
      const ns = timestampNs + (process.hrtime.bigint() - beganNs) + latencyNs
      const time = `@${ns / NS_PER_SECOND}.${String(ns % NS_PER_SECOND).padStart(9, '0')}`
      await this.#run([...this.#tools.command('date'), '-u', '-s', time])
      error = clockErrorNs(timestampNs, beganNs)
      latencyNs -= BigInt(Math.round(error))
    }
    return error / NS_PER_MS
  }

  async #run(command: readonly string[]): Promise<void> {
    const [program = '', ...args] = command
    const child = spawn(program, args, { stdio: 'ignore', env: { LC_ALL: 'C' } })
    const [code] = await once(child, 'exit')
    if (code !== 0) throw new AppError('guest_error', `${args.at(-1) ?? program} ended with ${code}.`)
  }
}

/** By an offset, not to a time: then it does not matter how long the call itself takes. */
async function shiftClock(calls: KernelCalls, offsetNs: bigint): Promise<void> {
  const timex = Buffer.alloc(TIMEX_BYTES)
  const belowSecond = ((offsetNs % NS_PER_SECOND) + NS_PER_SECOND) % NS_PER_SECOND
  timex.writeUInt32LE(ADJ_SETOFFSET_NANO, 0)
  timex.writeBigInt64LE((offsetNs - belowSecond) / NS_PER_SECOND, TIMEX_TIME_AT)
  timex.writeBigInt64LE(belowSecond, TIMEX_TIME_AT + 8)
  const call = { number: CLOCK_ADJTIME, args: [CLOCK_REALTIME, DATA_ADDRESS], data: timex }
  await calls.make('setting the clock', call)
}

const MARK = '# capsule'

/** `/etc/hosts` with exactly one line of ours. */
export function hostsWith(hostname: string, current: string): string {
  const others = current.split('\n').filter((line) => line !== '' && !line.endsWith(MARK))
  if (!others.some((line) => /^127\.0\.0\.1\s/.test(line))) others.unshift('127.0.0.1 localhost', '::1 localhost')
  return `${others.join('\n')}\n127.0.1.1 ${hostname} ${MARK}\n`
}

/** Absent, a link, a directory, a pipe without a reader, protected, running: making a new file tells what is really wrong. */
const NOT_OVERWRITABLE = [
  'ENOENT',
  'ELOOP',
  'EISDIR',
  'ENXIO',
  'EPERM',
  'EACCES',
  'EROFS',
  'ETXTBSY',
  'ENOTDIR',
] as const
const OVERWRITE = constants.O_WRONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

/**
 * Writes over an ordinary file of that name; puts a new one in the place of anything else. Writing over spares the overlay and its
 * file system a new inode and a rename, whose code an emulated CPU has to translate anew in each restored guest.
 */
export function writeText(path: string, text: string): void {
  if (!overwrite(path, Buffer.from(text))) replaceFile(path, text)
}

/** False when the name is not that of an ordinary file, or the file has other names, whose owners did not ask for this. */
function overwrite(path: string, content: Buffer): boolean {
  let fd: number
  try {
    fd = openSync(path, OVERWRITE)
  } catch (error) {
    if (isErrno(error, ...NOT_OVERWRITABLE)) return false
    throw error
  }
  try {
    const { nlink, size, mode } = fstatSync(fd)
    if (nlink !== 1 || (mode & constants.S_IFMT) !== constants.S_IFREG) return false
    writeSync(fd, content)
    if (size > content.length) ftruncateSync(fd, content.length)
    return true
  } finally {
    closeSync(fd)
  }
}

/** In one step, so that a pipe or a link that someone put there is neither waited for nor followed. */
function replaceFile(path: string, content: string): void {
  const temporary = `${path}.wrenn-${randomHex(6)}`
  try {
    writeFileSync(temporary, content, { flag: 'wx', mode: 0o644 })
    renameSync(temporary, path)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
}

function readIfPresent(path: string): string {
  try {
    return lstatSync(path).isFile() ? readFileSync(path, 'utf8') : ''
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return ''
    throw error
  }
}
