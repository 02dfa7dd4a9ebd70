import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { boundCommand, hasExited, waitFor } from '@wrenn/base'

const run = promisify(execFile)
const TOOL_TIMEOUT_MS = 60_000
const READY_TIMEOUT_MS = 60_000
const LAST_LINES = 10

/** The programs of one server: they end with this process, and all at once. */
export class Daemons implements AsyncDisposable {
  readonly #dir: string
  readonly #children: ChildProcess[] = []
  readonly #ended = new AbortController()

  /** @param dir where each one's output goes, `<name>.out` */
  constructor(dir: string) {
    this.#dir = dir
  }

  start(name: string, program: string, args: readonly string[]): void {
    const [command, ...rest] = boundCommand(program, args, { signal: 'KILL' })
    const child = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe'] })
    const output = createWriteStream(join(this.#dir, `${name}.out`))
    child.stdout.pipe(output, { end: false })
    child.stderr.pipe(output, { end: false })
    child.on('error', (error) => this.#ended.abort(error))
    child.on('exit', (code, signal) => this.#ended.abort(new Error(`${name} ended: ${code ?? signal}`)))
    this.#children.push(child)
  }

  /** Waits until the address answers anything by HTTP; throws with the last lines of a program that ended instead. */
  async answer(url: string, what: string): Promise<void> {
    const answers = async () => ((await fetch(url).catch(() => undefined)) === undefined ? undefined : true)
    const how = { timeoutMs: READY_TIMEOUT_MS, what: `${what} to answer`, signal: this.#ended.signal }
    try {
      await waitFor(answers, how)
    } catch (error) {
      throw new Error(`${what} did not start:\n${await this.#lastWords()}`, { cause: error })
    }
  }

  async #lastWords(): Promise<string> {
    const { stdout } = await run('sh', ['-c', 'tail -n "$1" "$2"/*.out', 'sh', String(LAST_LINES), this.#dir])
    return stdout
  }

  /** What they keep is thrown away, so nobody is asked politely. */
  async [Symbol.asyncDispose](): Promise<void> {
    const living = this.#children.filter((child) => child.pid !== undefined && !hasExited(child))
    const ended = living.map((child) => once(child, 'exit'))
    for (const child of living) child.kill('SIGKILL')
    await Promise.all(ended)
  }
}

/** Runs a tool to its end. @param input what it reads */
export async function runTool(program: string, args: readonly string[], input = ''): Promise<string> {
  const running = run(program, args, { timeout: TOOL_TIMEOUT_MS })
  running.child.stdin?.end(input)
  return (await running).stdout
}

/** A file of sections and settings, as both servers read it. */
export function iniText(
  sections: Readonly<Record<string, Readonly<Record<string, string | number | boolean>>>>,
): string {
  const textOf = ([name, settings]: [string, Readonly<Record<string, unknown>>]) =>
    [`[${name}]`, ...Object.entries(settings).map(([key, value]) => `${key} = ${value}`), ''].join('\n')
  return Object.entries(sections).map(textOf).join('\n')
}
