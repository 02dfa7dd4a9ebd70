import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import type { Platform } from './platform.js'
import { eventually } from './wait.js'

/** `wrenn shell` at a terminal: `script` from util-linux gives it one of the size that a person's would have. */
export class Terminal {
  #screen = ''
  readonly #child: ChildProcess
  readonly ended: Promise<number | null>

  constructor(platform: Pick<Platform, 'artefacts' | 'env'>, ...args: string[]) {
    const words = [process.execPath, join(platform.artefacts, 'apps/cli/bin/wrenn.mjs'), 'capsule', 'shell', ...args]
    const line = `stty cols 88 rows 33; exec ${words.map((word) => `'${word}'`).join(' ')}`
    this.#child = spawn('script', ['-qefc', line, '/dev/null'], {
      env: { ...platform.env, TERM: 'dumb' },
      stdio: 'pipe',
    })
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      this.#screen += chunk.toString()
    })
    this.ended = new Promise((resolve) => this.#child.once('close', resolve))
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
