import type { Readable } from 'node:stream'
import { AppError, abortable, randomTag } from '@wrenn/base'
import type { HostCalls } from '../../host/host.js'
import type { CapsuleRow, ProcessDefaults } from '../../store/schema.js'
import type { CapsuleRef, Wake } from '../capsules/index.js'
import { exitInfo, openArchive, type SessionContext, startSession, writeArchive, writeFile } from '../commands/index.js'
import { storable } from './plain-text.js'

const ROOT = 'root'
/** What a command of the platform's own may print, where little is looked for. */
export const SMALL_ANSWER_BYTES = 4096
/** And where errors name files. */
const ANSWER_BYTES = 64 * 1024
/** A folder on the guest's disk for the platform's own: its memory file systems may be too small. */
export const PLACES = '/var/tmp'

/** A command in what is built. */
export interface GuestCommand extends ProcessDefaults {
  readonly cmd: string
  readonly args: readonly string[]
}

/** Takes what a command prints, as fast as it can. */
export interface Output {
  readonly stdout: (bytes: Uint8Array) => Promise<void>
  readonly stderr: (bytes: Uint8Array) => Promise<void>
}

interface GuestDeps {
  readonly host: HostCalls
  readonly wake: Wake
}

/** The capsule in which a build runs. Every call ends with `signal`. */
export class BuildGuest {
  readonly #deps: GuestDeps
  readonly #capsule: CapsuleRef
  readonly #generation: number
  readonly #notice: string | null
  readonly #signal: AbortSignal

  constructor(deps: GuestDeps, { id, team_id: teamId, generation, notice }: CapsuleRow, signal: AbortSignal) {
    this.#deps = deps
    this.#capsule = { teamId, id }
    this.#generation = generation
    this.#notice = notice
    this.#signal = signal
  }

  get capsule(): CapsuleRef {
    return this.#capsule
  }

  /**
   * Runs a command to its end, or until `until` ends: then it is left running.
   * @returns its exit code in the shell's terms
   * @throws AppError why the capsule ended, when it did; `guest_error`, …
   */
  async run(command: GuestCommand, output: Output, until?: AbortSignal): Promise<number> {
    // Of its own: calls leave their listeners on it.
    const signal = AbortSignal.any(until === undefined ? [this.#signal] : [this.#signal, until])
    for await (const event of startSession(this.#context(signal), optionsOf(command, until === undefined))) {
      if (event.case === 'end') {
        const { exitCode, oomKilled } = exitInfo(event.value)
        if (oomKilled) throw new AppError('build_failed', 'The command was killed: the template has too little memory.')
        return exitCode
      }
      if (event.case !== 'data') continue
      const { case: kind, value } = event.value.output
      if (value !== undefined) await output[kind === 'stderr' ? 'stderr' : 'stdout'](value)
    }
    throw new AppError('guest_error', 'The process ended without saying how.')
  }

  /**
   * What a command of the platform's own prints, as root in `/`, unless it is told otherwise.
   * @throws AppError `build_failed` with what it says when it fails, or prints more than `maxBytes`
   */
  async answer(
    command: Pick<GuestCommand, 'cmd' | 'args'> & Partial<GuestCommand>,
    maxBytes = ANSWER_BYTES,
  ): Promise<Buffer> {
    const parts: { readonly stdout: Uint8Array[]; readonly stderr: Uint8Array[] } = { stdout: [], stderr: [] }
    let size = 0
    const keep = (kind: keyof typeof parts) => async (bytes: Uint8Array) => {
      size += bytes.length
      if (size > maxBytes) throw new AppError('build_failed', `${command.cmd} printed more than ${maxBytes} bytes.`)
      parts[kind].push(bytes)
    }
    const output = { stdout: keep('stdout'), stderr: keep('stderr') }
    const code = await this.run({ user: ROOT, cwd: '/', envs: {}, ...command }, output)
    if (code === 0) return Buffer.concat(parts.stdout)
    const said = Buffer.concat(parts.stderr).toString().trim()
    throw new AppError(
      'build_failed',
      said === '' ? `${command.cmd} ended with exit code ${code}.` : said.slice(0, 1000),
    )
  }

  /**
   * What its commands have done is all there: it has gone back to no earlier state since, neither by a rollback nor because its host restarted.
   * @throws AppError `engine_failure`, `host_unavailable`
   */
  async requireUnbroken(): Promise<void> {
    const { host, wake } = this.#deps
    const { id: capsuleId } = this.#capsule
    const { capsule } = await host.call((client) => client.getCapsule({ capsuleId }, { signal: this.#signal }))
    const notice = storable(capsule?.notice ?? '')
    const isRolledBack = (await wake.rolledBackSince(capsuleId, this.#generation)) !== undefined
    if (!isRolledBack && notice === (this.#notice ?? '')) return
    const why = notice === '' ? 'It was rolled back.' : notice
    throw new AppError('engine_failure', `The capsule of the build is not what its steps made of it. ${why}`)
  }

  /** Writes a file as root. */
  async upload(path: string, source: Readable): Promise<void> {
    const { host, wake } = this.#deps
    const target = { client: host.client, wake, capsule: this.#capsule, path, user: ROOT, signal: this.#signal }
    await writeFile(target, source, { mode: 0o600 })
  }

  /** Unpacks a tar into a folder as root, while it comes; all becomes root's. */
  async unpack(path: string, source: Readable): Promise<void> {
    const { host, wake } = this.#deps
    const target = { client: host.client, wake, capsule: this.#capsule, path, user: ROOT, signal: this.#signal }
    await writeArchive(target, source)
  }

  /** A folder as a tar, with owners; its entries begin with the folder's own name. @throws AppError why it is not whole, in the end */
  async *archive(path: string): AsyncGenerator<Uint8Array> {
    const { host, wake } = this.#deps
    const target = { client: host.client, wake, capsule: this.#capsule, path, user: ROOT }
    const opening = openArchive(target)
    try {
      const { pieces } = await abortable(opening, this.#signal)
      for (;;) {
        const next = await abortable(pieces.next(), this.#signal)
        if (next.done !== true) {
          yield next.value
          continue
        }
        const { error } = next.value
        if (error === undefined) return
        throw new AppError('build_failed', `The files of the stage could not be read: ${error.message}`)
      }
    } finally {
      // One that is still to come, too.
      void opening.then(({ abort }) => abort()).catch(() => {})
    }
  }

  #context(signal: AbortSignal): SessionContext {
    const { host, wake } = this.#deps
    return { client: host.client, wake, capsule: this.#capsule, generation: this.#generation, signal }
  }
}

function optionsOf({ cmd, args, envs, cwd, user }: GuestCommand, foreground: boolean) {
  const tag = randomTag('build')
  return { cmd, args, envs, cwd, user, tag, isNewTag: true, stdin: false, timeoutMs: 0, foreground }
}

/** A path as commands of the platform's own name it, which run in `/`. */
export function below(path: string): string {
  return `.${path.startsWith('/') ? '' : '/'}${path}`
}
