import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import type { Platform } from './platform.js'
import { eventually } from './wait.js'

/** A program at a terminal: `script` from util-linux gives it one of the size that a person's would have. */
export class Terminal {
  #screen = ''
  readonly #child: ChildProcess
  readonly ended: Promise<number | null>

  constructor(words: readonly string[], env: Readonly<Record<string, string>>) {
    const line = `stty cols 88 rows 33; exec ${words.map((word) => `'${word}'`).join(' ')}`
    this.#child = spawn('script', ['-qefc', line, '/dev/null'], { env: { ...env, TERM: 'dumb' }, stdio: 'pipe' })
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      this.#screen += chunk.toString()
    })
    this.ended = new Promise((resolve) => this.#child.once('close', resolve))
  }

  /** `wrenn capsule shell`. */
  static shell({ artefacts, env }: Pick<Platform, 'artefacts' | 'env'>, ...args: string[]): Terminal {
    const program = join(artefacts, 'apps/cli/bin/wrenn.mjs')
    return new Terminal([process.execPath, program, 'capsule', 'shell', ...args], env)
  }

  type(text: string): void {
    this.#child.stdin?.write(text)
  }

  get screen(): string {
    return this.#screen
  }

  async shows(text: string | RegExp): Promise<string> {
    return await eventually(
      () => `the terminal to show ${text} (it shows ${JSON.stringify(this.#screen)})`,
      () =>
        (typeof text === 'string' ? this.#screen.includes(text) : text.test(this.#screen)) ? this.#screen : undefined,
    )
  }
}
