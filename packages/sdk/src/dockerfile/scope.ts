import { DockerfileWordError, expandDockerfileWord, type Lookup } from '@wrenn/protocol'
import type { Instruction } from './instructions.js'
import { refuseSince } from './refuse.js'

/**
 * What Docker declares by itself, for whoever names it in an `ARG`; in `FROM` without one. Capsules are of one
 * platform.
 */
const platform: Readonly<Record<string, string>> = Object.fromEntries(
  ['TARGET', 'BUILD'].flatMap((of) => [
    [`${of}PLATFORM`, 'linux/amd64'],
    [`${of}OS`, 'linux'],
    [`${of}ARCH`, 'amd64'],
    [`${of}VARIANT`, ''],
  ]),
)
const PROXIES = new Set(['HTTP_PROXY', 'HTTPS_PROXY', 'FTP_PROXY', 'NO_PROXY', 'ALL_PROXY'])

/** Build arguments that were given, and those that some instruction has used. */
export class BuildArgs {
  readonly given: Readonly<Record<string, string>>
  readonly #used = new Set<string>()

  constructor(given: Readonly<Record<string, string>>) {
    this.given = given
  }

  use(name: string): string | undefined {
    this.#used.add(name)
    return Object.hasOwn(this.given, name) ? this.given[name] : undefined
  }

  get unused(): string[] {
    return Object.keys(this.given).filter((name) => !this.#used.has(name) && !PROXIES.has(name.toUpperCase()))
  }
}

/** The variables of a stage as far as the Dockerfile says them. */
export class Scope {
  /** `ARG` before the first `FROM`; each stage sees those that it declares itself. */
  readonly #globals: Scope | undefined
  readonly #args = new Map<string, string>()
  /** `undefined`: what it has depends on what the stage begins with. */
  readonly #envs = new Map<string, string | undefined>()
  readonly #buildArgs: BuildArgs

  constructor(buildArgs: BuildArgs, globals?: Scope) {
    this.#buildArgs = buildArgs
    this.#globals = globals
  }

  /** One for a stage that begins with this one. */
  child(): Scope {
    const child = new Scope(this.#buildArgs, this.#globals)
    for (const [name, value] of this.#args) child.#args.set(name, value)
    for (const [name, value] of this.#envs) child.#envs.set(name, value)
    return child
  }

  declare(instruction: Instruction, name: string, word: string | undefined): void {
    const own = word === undefined ? undefined : this.expand(instruction, word)
    const value = this.#buildArgs.use(name) ?? own ?? this.#fromGlobals(name)
    if (value !== undefined) this.#args.set(name, value)
  }

  #fromGlobals(name: string): string | undefined {
    return this.#globals === undefined ? undefined : (this.#globals.#args.get(name) ?? platform[name])
  }

  /** Of one instruction: each value is made of what variables had before it. */
  setEnvs(pairs: readonly (readonly [name: string, word: string])[]): void {
    const values = pairs.map(([name, word]) => [name, this.#known(word)] as const)
    for (const [name, value] of values) this.#envs.set(name, value)
  }

  #known(word: string): string | undefined {
    try {
      return expandDockerfileWord(word, (other) => this.#need(other))
    } catch (error) {
      // It names what only the template has: the platform puts that in.
      if (error instanceof DockerfileWordError) return undefined
      throw error
    }
  }

  /** Arguments as a command finds them; the platform knows that `ENV` wins. */
  get args(): Readonly<Record<string, string>> {
    const proxies = Object.entries(this.#buildArgs.given).filter(([name]) => PROXIES.has(name.toUpperCase()))
    return Object.fromEntries([...proxies, ...this.#args].filter(([name]) => !this.#envs.has(name)))
  }

  /** The arguments that words name. */
  argsIn(words: readonly string[]): Readonly<Record<string, string>> {
    const named = Object.entries(this.args).filter(([name]) =>
      words.some((word) => new RegExp(`\\$\\{?${name}(?!\\w)`).test(word)),
    )
    return Object.fromEntries(named)
  }

  /** A word whose variables the Dockerfile itself must have set. @throws WrennError */
  expand({ keyword, line }: Instruction, word: string): string {
    return expandOr(keyword, line, word, (name) => this.#need(name))
  }

  /** A word of a `FROM`: what was not declared is empty. @throws WrennError */
  expandGlobal({ keyword, line }: Instruction, word: string): string {
    return expandOr(keyword, line, word, (name) => this.#args.get(name) ?? platform[name])
  }

  #need(name: string): string | undefined {
    const value = this.#envs.has(name) ? this.#envs.get(name) : this.#args.get(name)
    if (value !== undefined) return value
    if (this.#globals === undefined) return undefined
    throw new DockerfileWordError(
      `$${name} has no value in this Dockerfile; declare it by ARG with a default, give it as --build-arg, or quote it where it is not meant`,
    )
  }
}

/** Refuses a word that is none, before anybody expands it. */
export function checkWord({ keyword, line }: Instruction, word: string): string {
  expandOr(keyword, line, word, () => 'x')
  return word
}

function expandOr(keyword: string, line: number, word: string, lookup: Lookup): string {
  try {
    return expandDockerfileWord(word, lookup)
  } catch (error) {
    if (error instanceof DockerfileWordError) throw refuseSince(line, keyword, error.message)
    throw error
  }
}
