import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { useCapsule, usePlatform } from '../harness/api.js'
import { eventually } from '../harness/wait.js'

const { platform } = usePlatform()
const capsule = useCapsule()

/** `wrenn shell` at a terminal: `script` from util-linux gives it one of the size that a person's would have. */
class Terminal {
  #screen = ''
  readonly #child: ChildProcess
  readonly ended: Promise<number | null>

  constructor(...args: string[]) {
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

describe('wrenn shell', () => {
  it('is a terminal of the right size in the capsule, and ends with the exit code of its shell', async () => {
    const terminal = new Terminal(capsule().id)
    await terminal.shows(capsule().id.slice(0, 10))
    terminal.type('stty size; hostname; echo "in $0"\r')
    await terminal.shows(/\b33 88\b/)
    await terminal.shows(/in -?.*sh/)
    terminal.type('sleep 1000\r')
    await terminal.shows('sleep 1000')
    await capsule().text('until pgrep -x sleep; do sleep 0.05; done')
    terminal.type('\u0003')
    terminal.type('echo "after $?"\r')
    await terminal.shows('after 130')
    terminal.type('exit 7\r')
    expect(await terminal.ended).toBe(7)
  })

  it('is left with Enter ~ . and taken up again where it was', async () => {
    const first = new Terminal(capsule().id, '--', '/bin/sh')
    first.type('kept=value-$((40 + 2))\r')
    await first.shows('kept=')
    first.type('\r~.')
    const detached = await first.shows(/--attach (pty-\w+)/)
    const tag = /--attach (pty-\w+)/.exec(detached)?.[1] ?? ''
    expect(await first.ended).toBe(0)
    const second = new Terminal(capsule().id, '--attach', tag)
    await second.shows('kept=value')
    second.type('echo "is $kept"\r')
    await second.shows('is value-42')
    second.type('exit 0\r')
    expect(await second.ended).toBe(0)
  })
})
