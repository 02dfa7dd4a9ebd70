import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type E2bSandbox, installClients, type Options } from './e2b-clients.js'

const NAME = 'code-interpreter-2.8'

/** Where the published package is. */
export async function installedCodeInterpreter(): Promise<string> {
  return join(await installClients(), 'node_modules', NAME)
}

/** The published package, unmodified, as a program imports it. */
export async function loadCodeInterpreter(): Promise<CodeInterpreterSdk> {
  const dir = await installClients()
  const entry = createRequire(join(dir, 'package.json')).resolve(NAME)
  return await import(/* @vite-ignore */ pathToFileURL(entry).href)
}

/** What of the package these tests use. */
export interface CodeInterpreterSdk {
  readonly Sandbox: {
    create(options: Options & CreateOptions): Promise<CodeSandbox>
    connect(id: string, options: Options): Promise<CodeSandbox>
  }
  readonly TimeoutError: new () => Error
  readonly NotFoundError: new () => Error
  readonly SandboxError: new () => Error
}

interface CreateOptions {
  readonly timeoutMs?: number
  readonly requestTimeoutMs?: number
  readonly envs?: Readonly<Record<string, string>>
}

interface CodeContext {
  readonly id: string
  readonly language: string
  readonly cwd: string
}

interface Output {
  readonly line: string
}

export interface RunOptions {
  readonly context?: CodeContext
  readonly language?: string
  readonly envs?: Readonly<Record<string, string>>
  readonly timeoutMs?: number
  readonly requestTimeoutMs?: number
  readonly onStdout?: (output: Output) => unknown
  readonly onStderr?: (output: Output) => unknown
}

/** A chart, a data frame and whatever else a run has shown. */
interface RunResult {
  readonly isMainResult: boolean
  readonly text?: string
  readonly html?: string
  readonly markdown?: string
  readonly latex?: string
  readonly svg?: string
  readonly png?: string
  readonly json?: unknown
  readonly data?: Readonly<Record<string, unknown>>
  readonly chart?: Chart
  formats(): string[]
}

interface Chart {
  readonly type: string
  readonly title: string
  readonly elements: readonly Readonly<Record<string, unknown>>[]
  readonly [field: string]: unknown
}

export interface Execution {
  readonly text?: string
  readonly results: readonly RunResult[]
  readonly logs: { readonly stdout: readonly string[]; readonly stderr: readonly string[] }
  readonly error?: { readonly name: string; readonly value: string; readonly traceback: string }
  readonly executionCount?: number
}

/** A sandbox that runs code. */
export interface CodeSandbox extends Omit<E2bSandbox, 'connect' | 'fork'> {
  runCode(code: string, options?: RunOptions): Promise<Execution>
  createCodeContext(options?: { readonly language?: string; readonly cwd?: string }): Promise<CodeContext>
  listCodeContexts(): Promise<readonly CodeContext[]>
  restartCodeContext(context: CodeContext | string): Promise<void>
  removeCodeContext(context: CodeContext | string): Promise<void>
  connect(options?: { readonly timeoutMs?: number }): Promise<CodeSandbox>
  fork(options?: { readonly count?: number }): Promise<readonly (CodeSandbox | Error)[]>
}
