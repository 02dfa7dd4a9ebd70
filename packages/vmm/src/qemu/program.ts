import { execFile } from 'node:child_process'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText, isErrno } from '@wrenn/base'
import type { Hardware } from '../engine.js'
import type { Accelerator } from './command-line.js'
import { lastWords } from './exit-cause.js'
import {
  cpuArgument,
  EMULATED_CPUS,
  HARDWARE_CPUS,
  HOST_CPU,
  isHostCpu,
  MACHINE_LAYOUT,
  PROVEN_MACHINES,
} from './hardware.js'

/** Asking takes a tenth of a second; the rest is for a busy machine. */
const ASK_DEADLINE_MS = 30_000
/** As the launcher's: what a bare name means. */
const SEARCH_PATH = ['/usr/sbin', '/usr/bin', '/sbin', '/bin']
const MAX_ANSWER_BYTES = 16 * 1024 * 1024

/** What a program at rest has answered. Questions that fail are asked again. */
interface Answers {
  /** Of the program's file. */
  readonly identity: string
  readonly kept: Map<string, Promise<unknown>>
}

interface MachineTypes {
  readonly names: ReadonlySet<string>
  /** What the alias `q35` means. */
  readonly newest: string | undefined
}

/**
 * An installed QEMU: which version it is and which guests it can run, asked of the program itself. Its file may be replaced
 * at any time, by an upgrade or by going back; then it is asked anew.
 */
export class QemuProgram {
  readonly path: string
  readonly #accelerator: Accelerator
  #answers: Answers | undefined

  constructor(path: string, accelerator: Accelerator) {
    this.path = path
    this.#accelerator = accelerator
  }

  /** Such as `qemu 7.2.22`. @throws AppError `engine_failure` when it does not run */
  async version(): Promise<string> {
    return await this.#once('version', () => readVersion(this.path))
  }

  /** What a new guest gets: the newest machine type that is proven, with the best CPU model that this machine can run. */
  async newHardware(): Promise<Hardware> {
    return await this.#once('new', async () => {
      const { names, newest } = await this.#machines()
      const machine = PROVEN_MACHINES.find((name) => names.has(name)) ?? newest
      if (machine === undefined) throw new AppError('engine_failure', `${this.path} has no q35 machine.`)
      return { machine, cpu: await this.#newCpu(machine), layout: MACHINE_LAYOUT }
    })
  }

  /** Why a state saved on this hardware cannot be loaded by this program on this machine; `undefined` when it can. */
  async obstacle({ machine, cpu, layout }: Hardware): Promise<string | undefined> {
    if (layout > MACHINE_LAYOUT) return `this version of Wrenn does not know the device layout ${layout}`
    const { names } = await this.#machines()
    if (!names.has(machine)) return `${await this.version()} has no machine type ${machine}`
    if (isHostCpu(cpu)) {
      const here = await hostCpu()
      return cpu === HOST_CPU || cpu === here ? undefined : `its CPU was ${cpu} and this machine has ${here}`
    }
    const problem = await this.#startProblem(machine, cpu)
    return problem === undefined ? undefined : `${await this.version()} cannot give it the CPU ${cpu} here: ${problem}`
  }

  async #newCpu(machine: string): Promise<string> {
    const isEmulated = this.#accelerator === 'tcg'
    const models = isEmulated ? EMULATED_CPUS : (HARDWARE_CPUS[(await processor()).vendor] ?? [])
    for (const cpu of models) if ((await this.#startProblem(machine, cpu)) === undefined) return cpu
    if (!isEmulated) return await hostCpu()
    throw new AppError('engine_failure', `${this.path} cannot start ${machine} with any of ${models.join(', ')}.`)
  }

  async #machines(): Promise<MachineTypes> {
    return await this.#once('machines', async () => {
      const { answer, exitCode, words } = await ask(this.path, ['-machine', 'none'], ['query-machines'])
      if (exitCode !== 0) throw new AppError('engine_failure', `${this.path} does not run: ${words}`)
      const types = Array.isArray(answer) ? answer.map(machineType) : []
      return {
        names: new Set(types.map(({ name }) => name)),
        newest: types.find(({ alias }) => alias === 'q35')?.name,
      }
    })
  }

  /** What QEMU says when it is to start this machine with this CPU; `undefined` when it starts. */
  async #startProblem(machine: string, cpu: string): Promise<string | undefined> {
    return await this.#once(`start ${machine} ${cpu}`, async () => {
      const guest = ['-machine', `${machine},usb=off,sata=off`, '-accel', this.#accelerator, '-cpu', cpuArgument(cpu)]
      const { exitCode, words } = await ask(this.path, [...guest, '-m', '32M', '-S'], [])
      return exitCode === 0 ? undefined : words
    })
  }

  async #once<T>(question: string, answer: () => Promise<T>): Promise<T> {
    const identity = await identify(this.path)
    if (this.#answers?.identity !== identity) this.#answers = { identity, kept: new Map() }
    const { kept } = this.#answers
    const known = kept.get(question)
    if (known !== undefined) return (await known) as T // only this question's answers are kept under its name
    const asked = answer()
    kept.set(question, asked)
    asked.catch(() => kept.delete(question))
    return await asked
  }
}

/** Tells one file from another that takes its place. Also of a link, the file that it leads to. */
async function identify(path: string): Promise<string> {
  const places = path.includes('/') ? [path] : SEARCH_PATH.map((folder) => join(folder, path))
  for (const place of places) {
    try {
      const { dev, ino, size, mtimeMs } = await stat(place)
      return [place, dev, ino, size, mtimeMs].join(' ')
    } catch (error) {
      if (!isErrno(error, 'ENOENT', 'ENOTDIR')) throw error
    }
  }
  return 'missing'
}

async function readVersion(path: string): Promise<string> {
  const { exitCode, output, words } = await run(path, ['--version'], '')
  if (exitCode !== 0) throw new AppError('engine_failure', `${path} does not run: ${words}`)
  return `qemu ${/version (\d+(?:\.\d+)+)/.exec(output)?.[1] ?? output.trim()}`
}

interface Asked {
  /** Of the last command. */
  readonly answer: unknown
  readonly exitCode: number
  /** What it wrote beside, in a sentence. */
  readonly words: string
}

/** Starts the program with a monitor on its standard input, gives it the commands and lets it quit. */
async function ask(path: string, args: readonly string[], commands: readonly string[]): Promise<Asked> {
  const lines = ['qmp_capabilities', ...commands, 'quit'].map((execute) => `${JSON.stringify({ execute })}\n`)
  const still = ['-no-user-config', '-nodefaults', '-display', 'none', '-qmp', 'stdio']
  const { output, exitCode, words } = await run(path, [...args, ...still], lines.join(''))
  const answers = output.split('\n').flatMap((line) => (line.includes('"return"') ? [JSON.parse(line).return] : []))
  return { answer: answers[commands.length], exitCode, words }
}

/** @throws AppError `engine_failure` when it cannot be run, or does not end */
async function run(path: string, args: readonly string[], input: string) {
  return await new Promise<{ output: string; exitCode: number; words: string }>((resolve, reject) => {
    const options = {
      timeout: ASK_DEADLINE_MS,
      killSignal: 'SIGKILL' as const,
      maxBuffer: MAX_ANSWER_BYTES,
      env: { PATH: SEARCH_PATH.join(':'), LC_ALL: 'C' },
    }
    const child = execFile(path, args, options, (error, output, complaints) => {
      if (error !== null && typeof error.code !== 'number') {
        const hint = isErrno(error, 'ENOENT') ? 'it is not installed (Debian: qemu-system-x86)' : errorText(error)
        reject(new AppError('engine_failure', `${path} does not run: ${hint}.`, { cause: error }))
      } else {
        resolve({ output, exitCode: Number(error?.code ?? 0), words: lastWords(complaints) })
      }
    })
    child.stdin?.on('error', () => {}) // it ended before it read everything, which its exit code tells
    child.stdin?.end(input)
  })
}

function machineType(answer: unknown): { readonly name: string; readonly alias: string | undefined } {
  if (typeof answer !== 'object' || answer === null || !('name' in answer)) return { name: '', alias: undefined }
  return { name: String(answer.name), alias: 'alias' in answer ? String(answer.alias) : undefined }
}

async function hostCpu(): Promise<string> {
  const { vendor, family, model } = await processor()
  return `${HOST_CPU}:${vendor}-${family}-${model}`
}

async function processor(): Promise<{ readonly vendor: string; readonly family: string; readonly model: string }> {
  const text = await readFile('/proc/cpuinfo', 'utf8')
  const field = (name: string) => new RegExp(`^${name}\\s*:\\s*(\\S+)`, 'm').exec(text)?.[1] ?? 'unknown'
  return { vendor: field('vendor_id'), family: field('cpu family'), model: field('model') }
}
