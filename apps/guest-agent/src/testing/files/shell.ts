import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { TESTER } from '../agent-harness.js'

export type Who = 'root' | 'tester'

/** What a script wrote, and how it ended. */
export interface Ran {
  readonly code: number
  readonly stdout: Buffer
  readonly stderr: string
}

/** Bytes as a word of bash. */
export function word(bytes: Uint8Array | string): string {
  return `$'${[...Buffer.from(bytes)].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}'`
}

/** The tools of this machine, which say what is right: a shell for each user, kept because starting one takes its time. */
export class Machine implements Disposable {
  readonly #dir = mkdtempSync(join(tmpdir(), 'guest-agent-judge-'))
  readonly #shells = { root: new Shell('root', this.#dir), tester: new Shell('tester', this.#dir) }

  /** Runs a script with the rights of a user. */
  async run(who: Who, script: string): Promise<Ran> {
    return await this.#shells[who].run(script)
  }

  /** @throws Error when it fails: a fault of the suite's own */
  async mustRun(script: string): Promise<Buffer> {
    const { code, stdout, stderr } = await this.run('root', `set -e -o pipefail\n${script}`)
    if (code !== 0) throw new Error(`The suite's own script ended with ${code}: ${stderr}\n${script}`)
    return stdout
  }

  [Symbol.dispose](): void {
    for (const shell of Object.values(this.#shells)) shell.end()
    rmSync(this.#dir, { recursive: true, force: true })
  }
}

class Shell {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #codes: AsyncIterator<string>
  readonly #stdout: string
  readonly #stderr: string
  #last: Promise<unknown> = Promise.resolve()

  constructor(who: Who, dir: string) {
    this.#stdout = join(dir, `${who}.stdout`)
    this.#stderr = join(dir, `${who}.stderr`)
    const ids = ['--reuid', TESTER.uid, '--regid', TESTER.gid, '--groups', [TESTER.gid, ...TESTER.groups].join(',')]
    // The files are opened before the rights are given up.
    const become = who === 'root' ? '' : `setpriv ${ids.join(' ')} `
    const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' }
    const script = `umask 022; exec 8>>${word(this.#stdout)} 9>>${word(this.#stderr)}; exec ${become}bash --norc -s`
    this.#child = spawn('bash', ['--norc', '-c', script], { env, cwd: '/', stdio: ['pipe', 'pipe', 'inherit'] })
    this.#codes = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  /** One script after the other. */
  run(script: string): Promise<Ran> {
    const next = this.#last.then(() => this.#run(script))
    this.#last = next.catch(() => {})
    return next
  }

  async #run(script: string): Promise<Ran> {
    this.#child.stdin.write(`(\n${script}\n) </dev/null >&8 2>&9; echo $?\n`)
    const { value, done } = await this.#codes.next()
    if (done === true) throw new Error(`The suite's shell has ended at: ${script}`)
    const stdout = readFileSync(this.#stdout)
    const stderr = readFileSync(this.#stderr, 'latin1')
    for (const each of [this.#stdout, this.#stderr]) truncateSync(each)
    return { code: Number(value), stdout, stderr }
  }

  end(): void {
    this.#child.stdin.end()
  }
}
