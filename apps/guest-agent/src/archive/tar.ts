import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import { AppError } from '@wrenn/base'
import type { GuestUser } from '../identity/users.js'
import { commandAs } from '../system/run-as.js'
import type { Tools } from '../system/tools.js'
import { TarMessages } from './messages.js'

/** Where tar finds the directory that it works in, whose path might have bytes that no argument list of Node.js can carry. */
const DIRECTORY = '/proc/self/fd/3'

/** Names and numbers of users differ between machines, and looking names up would load the guest's own libraries. */
const COMMON = ['--file=-', '--numeric-owner', `--directory=${DIRECTORY}`]

const CREATE = [
  '--create',
  // Sizes beyond 8 GiB, long names and fractions of seconds; no times that change with every copy.
  '--format=posix',
  '--pax-option=delete=atime,delete=ctime',
  '--sparse',
  // One name follows on standard input, with whatever bytes it has.
  '--null',
  '--verbatim-files-from',
  '--files-from=-',
]

const EXTRACT = [
  '--extract',
  '--preserve-permissions',
  '--no-same-owner',
  // An overlay for `/` must not replace /lib, a link in any Debian, by a directory.
  '--keep-directory-symlink',
  // The client's clock may be ahead.
  '--warning=no-timestamp',
]

/** How GNU tar ended and what it said. Its exit codes alone do not tell what is missing; its messages do. */
export interface TarEnd {
  /** 0: all well; 1: something changed meanwhile; 2: something failed; `undefined`: killed. */
  readonly code: number | undefined
  readonly messages: TarMessages
}

/** GNU tar at work with the rights of a user in a directory that is open already. Disposing ends it. */
export class Tar implements Disposable {
  readonly input: Writable
  readonly output: Readable
  readonly #child: ChildProcess
  readonly #messages = new TarMessages()
  readonly #end: Promise<TarEnd>

  private constructor(user: GuestUser, tools: Tools, args: readonly string[], directoryFd: number) {
    const { program, args: words, ids } = commandAs(user, tools, [...tools.command('tar'), ...COMMON, ...args])
    const stdio: readonly ['pipe', 'pipe', 'pipe', number] = ['pipe', 'pipe', 'pipe', directoryFd]
    const child = spawn(program, words, { env: { LC_ALL: 'C' }, cwd: '/', stdio: [...stdio], ...ids })
    const { stdin, stdout, stderr } = child
    if (stdin === null || stdout === null || stderr === null) throw new Error('A child with pipes has pipes.')
    this.#child = child
    this.input = stdin
    this.output = stdout
    // It may end before it has read all; its exit code tells.
    stdin.on('error', () => {})
    stderr.setEncoding('latin1').on('data', (text: string) => this.#hear(text))
    this.#end = once(child, 'close').then(
      ([code]) => ({ code: typeof code === 'number' ? code : undefined, messages: this.#messages }),
      (error: unknown) => {
        throw new AppError('guest_error', 'Archives need the program tar.', { cause: error })
      },
    )
    this.#end.catch(() => {}) // whoever waits for the end is told
  }

  /** Makes an archive of the entry `name` of the directory. */
  static create(user: GuestUser, tools: Tools, directoryFd: number, name: Buffer): Tar {
    const tar = new Tar(user, tools, CREATE, directoryFd)
    tar.input.end(Buffer.concat([name, Buffer.of(0)]))
    return tar
  }

  /** Unpacks what is written to `input` into the directory. */
  static extract(user: GuestUser, tools: Tools, directoryFd: number): Tar {
    const tar = new Tar(user, tools, EXTRACT, directoryFd)
    tar.output.resume()
    return tar
  }

  /** @throws AppError `guest_error` when it could not be started */
  async ended(): Promise<TarEnd> {
    return await this.#end
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL')
  }

  #hear(text: string): void {
    this.#messages.add(text)
    // It would go on and fail for every file that is left.
    if (this.#messages.isFull) this.#child.kill('SIGKILL')
  }
}
