import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { isErrno } from '@wrenn/base'

/** What `/init` last said about this capsule. Never logged: it holds the secret and the environment's values. */
export interface IdentityValues {
  readonly secret?: string | undefined
  readonly accessToken?: string | undefined
  readonly envs: Readonly<Record<string, string>>
  readonly defaultUser: string
  /** Absent: the user's home. */
  readonly defaultCwd?: string | undefined
}

/**
 * The identity where an agent that is started again in the same guest finds it. Without it that agent would be unclaimed: deaf to
 * its host, and open to the first program in the guest that calls `/init`. The file is in memory only, readable by root alone.
 */
export class IdentityFile {
  readonly #path: string

  constructor(path: string) {
    this.#path = path
  }

  read(): IdentityValues | undefined {
    try {
      const values: unknown = JSON.parse(readFileSync(this.#path, 'utf8'))
      // Written below by this same class, in one step.
      return values as IdentityValues
    } catch (error) {
      // A file that somebody damaged must not keep the agent from starting.
      if (isErrno(error, 'ENOENT') || error instanceof SyntaxError) return undefined
      throw error
    }
  }

  write(values: IdentityValues): void {
    mkdirSync(dirname(this.#path), { recursive: true, mode: 0o700 })
    writeFileSync(`${this.#path}.new`, JSON.stringify(values), { mode: 0o600 })
    renameSync(`${this.#path}.new`, this.#path)
  }
}
