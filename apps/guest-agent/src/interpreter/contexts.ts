import { stat } from 'node:fs/promises'
import { AppError } from '@wrenn/base'
import { type CapsuleView, Context, type ContextInfo } from './context.js'
import { HelperCode } from './helper-code.js'
import type { JupyterApi } from './jupyter-api.js'

/** Languages that the image has kernels of. */
const LANGUAGES: readonly string[] = ['python', 'python3', 'py']

/** What contexts are made with. */
export interface ContextsOptions {
  readonly jupyter: JupyterApi
  /** Where code runs that names no directory. */
  readonly cwd: string
  readonly look: () => CapsuleView
}

/** All contexts of this guest. Code that names none runs in the default one, which is there from the start. */
export class Contexts {
  readonly #options: ContextsOptions
  readonly #contexts = new Map<string, Context>()
  #default: Promise<Context>

  /** Begins to start the default context. */
  constructor(options: ContextsOptions) {
    this.#options = options
    this.#default = this.#begin(options.cwd)
  }

  /** Returns when the default context has loaded what most programs use. */
  async warmUp(): Promise<void> {
    await (await this.#default).prepare(HelperCode.warmUp)
  }

  list(): readonly ContextInfo[] {
    return [...this.#contexts.values()].map(({ info }) => info)
  }

  /** @throws AppError `invalid_request` for a language that there is not, or a directory that is none */
  async create(language: string | undefined, cwd: string | undefined): Promise<ContextInfo> {
    requireLanguage(language)
    return (await this.#begin(await directory(cwd ?? this.#options.cwd))).info
  }

  /**
   * The context of that id, else the default one, which is started anew where somebody has removed it.
   * @throws AppError `not_found`, `invalid_request` for a language that there is not
   */
  async find(id: string | undefined, language?: string): Promise<Context> {
    if (id === undefined) {
      requireLanguage(language)
      return await this.#defaultContext()
    }
    const found = this.#contexts.get(id)
    if (found === undefined) throw new AppError('not_found', `There is no context "${id.slice(0, 100)}".`)
    return found
  }

  /** @throws AppError `not_found` */
  async remove(id: string): Promise<void> {
    const context = await this.find(id)
    this.#contexts.delete(id)
    await context.remove()
  }

  async #defaultContext(): Promise<Context> {
    const context = await this.#default.catch(() => undefined)
    if (context !== undefined && this.#contexts.has(context.info.id)) return context
    this.#default = this.#begin(this.#options.cwd)
    return await this.#default
  }

  async #begin(cwd: string): Promise<Context> {
    const context = await Context.start(this.#options.jupyter, cwd, this.#options.look)
    this.#contexts.set(context.info.id, context)
    return context
  }
}

function requireLanguage(language: string | undefined): void {
  if (language === undefined || LANGUAGES.includes(language.toLowerCase())) return
  const message = `There is no kernel for "${language.slice(0, 100)}"; this template has python.`
  throw new AppError('invalid_request', message)
}

async function directory(path: string): Promise<string> {
  const isAbsolute = path.startsWith('/') && !path.includes('\0')
  const found = isAbsolute ? await stat(path).catch(() => undefined) : undefined
  if (found?.isDirectory()) return path
  throw new AppError(
    'invalid_request',
    `cwd must be a directory that is there, as an absolute path; "${path.slice(0, 200)}" is none.`,
  )
}
