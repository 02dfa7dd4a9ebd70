import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
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

/** A file that has grown beyond this is begun anew. */
const MAX_BYTES = 1024 * 1024

/**
 * The identity where an agent that is started again in the same guest finds it. Without it that agent would be unclaimed: deaf to
 * its host, and open to the first program in the guest that calls `/init`. The file is in memory only, readable by root alone.
 * One line per identity, the last complete one holds: a restored guest then takes a new one with a single write.
 */
export class IdentityFile {
  readonly #path: string
  #fd: number | undefined
  #bytes = 0

  constructor(path: string) {
    this.#path = path
  }

  /** What was written last and whole; `undefined` when nothing was. */
  read(): IdentityValues | undefined {
    let text: string
    try {
      text = readFileSync(this.#path, 'utf8')
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined
      throw error
    }
    for (const line of text.split('\n').slice(0, -1).reverse()) {
      const values = parse(line)
      if (values !== undefined) return values
    }
    return undefined
  }

  /** Appends, so that a write that breaks off leaves the one before it valid. */
  write(values: IdentityValues): void {
    const line = Buffer.from(`${JSON.stringify(values)}\n`)
    if (this.#fd === undefined || this.#bytes > MAX_BYTES) this.#begin(line)
    else this.#append(this.#fd, line)
  }

  #append(fd: number, line: Buffer): void {
    try {
      for (let at = 0; at < line.length; ) at += writeSync(fd, line, at, line.length - at)
      this.#bytes += line.length
    } catch (error) {
      // Half a line would spoil the next one.
      ftruncateSync(fd, this.#bytes)
      throw error
    }
  }

  /** A new file, in one step. */
  #begin(line: Buffer): void {
    mkdirSync(dirname(this.#path), { recursive: true, mode: 0o700 })
    const fd = openSync(`${this.#path}.new`, 'w', 0o600)
    try {
      writeFileSync(fd, line)
      renameSync(`${this.#path}.new`, this.#path)
    } catch (error) {
      closeSync(fd)
      throw error
    }
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = fd
    this.#bytes = line.length
  }
}

function parse(line: string): IdentityValues | undefined {
  try {
    const values: unknown = JSON.parse(line)
    // Written above by this same class, whole or not at all.
    return values as IdentityValues
  } catch (error) {
    // A file that somebody damaged must not keep the agent from starting.
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}
