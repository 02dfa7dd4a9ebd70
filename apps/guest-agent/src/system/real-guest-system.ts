import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, lstatSync, openSync, readFileSync, renameSync, rmSync, write, writeFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { AppError, isErrno } from '@wrenn/base'
import { ClockSetter } from './clock-setter.js'
import { type ConnectionPorts, clockError, type GuestSystem } from './guest-system.js'
import { randomHex } from './random.js'
import type { Tools } from './tools.js'

const writeAsync = promisify(write)

/** Closer than this the clock is left alone: setting it costs a process. */
const GOOD_ENOUGH_MS = 20
const ATTEMPTS = 3

/** The guest this agent runs in. */
export class RealGuestSystem implements GuestSystem {
  readonly #tools: Tools
  #clock: ClockSetter | undefined

  constructor(tools: Tools) {
    this.#tools = tools
    // Started now, it waits inside the template's snapshot: after a restore no process has to be made.
    this.#clock = ClockSetter.start(tools)
  }

  async setClock(timestampNs: bigint): Promise<number> {
    const began = process.hrtime.bigint()
    const elapsed = (): bigint => process.hrtime.bigint() - began
    let error = clockError(timestampNs, 0)
    // `date` takes a while to start; what it was late by last time is added the next time.
    let latencyNs = 0n
    for (let attempt = 0; attempt < ATTEMPTS && Math.abs(error) > GOOD_ENOUGH_MS; attempt++) {
      await this.#set(timestampNs + elapsed() + latencyNs)
      error = clockError(timestampNs, Number(elapsed()) / 1e6)
      latencyNs -= BigInt(Math.round(error * 1e6))
    }
    return error
  }

  setHostname(hostname: string): void {
    writeFileSync('/proc/sys/kernel/hostname', hostname)
    replaceFile('/etc/hostname', `${hostname}\n`)
    replaceFile('/etc/hosts', hostsWith(hostname, readIfPresent('/etc/hosts')))
  }

  setMachineId(machineId: string): void {
    replaceFile('/etc/machine-id', `${machineId}\n`)
  }

  addEntropy(bytes: Uint8Array): void {
    writeFileSync('/dev/urandom', bytes)
  }

  async dropConnections(_kept: ConnectionPorts): Promise<void> {}

  async sync(): Promise<void> {
    const [program = 'sync', ...args] = this.#tools.applet('sync')
    const child = spawn(program, args, { stdio: 'ignore', env: {} })
    const [code] = await once(child, 'exit')
    if (code !== 0) throw new AppError('guest_error', `The disk could not be synced: sync ended with ${code}.`)
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

  async #set(ns: bigint): Promise<void> {
    if (await this.#clock?.set(ns)) return
    this.#clock = ClockSetter.start(this.#tools)
    await this.#date(ns)
  }

  async #date(ns: bigint): Promise<void> {
    const time = `@${ns / 1_000_000_000n}.${String(ns % 1_000_000_000n).padStart(9, '0')}`
    const [program = 'date', ...args] = [...this.#tools.command('date'), '-u', '-s', time]
    const child = spawn(program, args, { stdio: 'ignore', env: { LC_ALL: 'C' } })
    const [code] = await once(child, 'exit')
    if (code !== 0) throw new AppError('guest_error', `The clock could not be set: date ended with ${code}.`)
  }
}

const MARK = '# capsule'

/** `/etc/hosts` with exactly one line of ours. */
export function hostsWith(hostname: string, current: string): string {
  const others = current.split('\n').filter((line) => line !== '' && !line.endsWith(MARK))
  if (!others.some((line) => /^127\.0\.0\.1\s/.test(line))) others.unshift('127.0.0.1 localhost', '::1 localhost')
  return `${others.join('\n')}\n127.0.1.1 ${hostname} ${MARK}\n`
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
