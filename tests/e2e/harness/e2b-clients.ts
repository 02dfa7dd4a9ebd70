import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cp, mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'

const sources = join(dirname(dirname(fileURLToPath(import.meta.url))), 'e2b')
const FILES = ['package.json', 'package-lock.json']

/** The published packages, as `clients/package.json` calls them, oldest first. */
export const clientVersions = ['e2b-2.45', 'e2b-2.50', 'e2b-2.51'] as const
type ClientVersion = (typeof clientVersions)[number]

/** Installs the SDKs, or the command line, where they are kept from run to run, by their lock file. @returns the directory */
export async function installClients(what: 'clients' | 'command-line' = 'clients'): Promise<string> {
  const source = join(sources, what)
  const lock = await readFile(join(source, 'package-lock.json'))
  const digest = createHash('sha256').update(lock).digest('hex').slice(0, 16)
  const dir = join(tmpdir(), `wrenn-test-e2b-clients-${digest}`)
  if (await isInstalled(dir)) return dir
  const draft = await mkdtemp(join(tmpdir(), 'wrenn-test-e2b-draft-'))
  try {
    for (const name of FILES) await cp(join(source, name), join(draft, name))
    await promisify(execFile)('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: draft })
    await rm(dir, { recursive: true, force: true })
    await rename(draft, dir)
  } finally {
    await rm(draft, { recursive: true, force: true })
  }
  return dir
}

/** Only what was moved into its place is whole. */
async function isInstalled(dir: string): Promise<boolean> {
  await mkdir(dirname(dir), { recursive: true })
  return await readFile(join(dir, 'package-lock.json')).then(
    () => true,
    () => false,
  )
}

/** One version of the SDK, unmodified, as a program imports it. */
export async function loadClient(dir: string, version: ClientVersion): Promise<E2bSdk> {
  const entry = createRequire(join(dir, 'package.json')).resolve(version)
  return await import(/* @vite-ignore */ pathToFileURL(entry).href)
}

/** What of the SDK these tests use, which is the same in all versions. */
export interface E2bSdk {
  readonly Sandbox: {
    create(template: string, options: Options & CreateOptions): Promise<E2bSandbox>
    connect(id: string, options: Options & { readonly timeoutMs?: number }): Promise<E2bSandbox>
    kill(id: string, options: Options): Promise<boolean>
    list(options: Options & ListOptions): Pages<SandboxInfo>
    listSnapshots(options: Options & { readonly sandboxId?: string }): Pages<{ readonly snapshotId: string }>
    deleteSnapshot(id: string, options: Options): Promise<boolean>
  }
  readonly Template: {
    (options?: { readonly fileContextPath?: string }): TemplateStart
    exists(name: string, options: Options): Promise<boolean>
    build(template: unknown, name: string, options: Options & BuildOptions): Promise<Build>
    buildInBackground(template: unknown, name: string, options: Options & BuildOptions): Promise<Build>
    assignTags(target: string, tags: string | readonly string[], options: Options): Promise<unknown>
    removeTags(name: string, tags: string | readonly string[], options: Options): Promise<void>
    getTags(name: string, options: Options): Promise<readonly { readonly tag: string; readonly buildId: string }[]>
    getBuildStatus(build: Build, options: Options & { readonly logsOffset?: number }): Promise<BuildStatus>
  }
  readonly Secret: {
    create(name: string, value: string, options: Options & SecretOptions): Promise<SecretInfo>
    update(idOrName: string, value: string, options: Options & SecretOptions): Promise<SecretInfo>
    getInfo(idOrName: string, options: Options): Promise<SecretInfo>
    list(options: Options & { readonly limit?: number }): Pages<SecretInfo>
    exists(idOrName: string, options: Options): Promise<boolean>
    destroy(idOrName: string, options: Options): Promise<boolean>
    fill(name: string): string
  }
  readonly NotFoundError: new () => Error
  readonly AuthenticationError: new () => Error
  readonly CommandExitError: new () => Error & { readonly exitCode: number }
  readonly TimeoutError: new () => Error
}

/** Which platform, and as whom. */
export interface Options {
  readonly apiKey: string
  readonly apiUrl: string
  readonly sandboxUrl: string
}

interface SecretOptions {
  readonly metadata?: Readonly<Record<string, string>>
}

interface SecretInfo {
  readonly secretId: string
  readonly name: string
  readonly version: number
  readonly metadata: Readonly<Record<string, string>>
}

/** How far a template's steps are said. */
interface TemplateBuilder {
  runCmd(line: string, options?: { readonly user?: string }): TemplateBuilder
  copy(from: string, to: string): TemplateBuilder
  setEnvs(envs: Readonly<Record<string, string>>): TemplateBuilder
  setWorkdir(path: string): TemplateBuilder
  setUser(user: string): TemplateBuilder
  skipCache(): TemplateBuilder
  setStartCmd(line: string, ready: string): unknown
}

interface TemplateStart {
  fromBaseImage(): TemplateBuilder
  fromImage(name: string, login?: { readonly username: string; readonly password: string }): TemplateBuilder
  fromTemplate(name: string): TemplateBuilder
}

interface BuildOptions {
  readonly cpuCount?: number
  readonly memoryMB?: number
  readonly onBuildLogs?: (entry: BuildLogEntry) => void
}

export interface BuildLogEntry {
  readonly message: string
  readonly level: string
}

interface Build {
  readonly templateId: string
  readonly buildId: string
}

interface BuildStatus {
  readonly status: string
  readonly logEntries: readonly BuildLogEntry[]
}

interface CreateOptions {
  readonly timeoutMs?: number
  readonly metadata?: Readonly<Record<string, string>>
  readonly envs?: Readonly<Record<string, string>>
  readonly allowInternetAccess?: boolean
  readonly lifecycle?: { readonly onTimeout: 'kill' | 'pause'; readonly autoResume?: boolean }
  readonly network?: Readonly<Record<string, unknown>>
  readonly volumeMounts?: Readonly<Record<string, string>>
}

interface ListOptions {
  readonly query?: { readonly metadata?: Readonly<Record<string, string>>; readonly state?: readonly string[] }
  readonly limit?: number
}

interface Pages<T> {
  readonly hasNext: boolean
  nextItems(): Promise<T[]>
}

interface SandboxInfo {
  readonly sandboxId: string
  readonly state: string
  readonly metadata: Readonly<Record<string, string>>
  readonly endAt: Date
}

/** How a command ended. */
interface CommandResult {
  readonly stdout: string
  readonly stderr: string
  readonly exitCode: number
}

/** A command or terminal under way. */
interface Handle {
  readonly pid: number
  kill(): Promise<boolean>
  wait(): Promise<CommandResult>
}

interface RunOptions {
  readonly user?: string
  readonly timeoutMs?: number
  readonly stdin?: boolean
  readonly onStdout?: (text: string) => void
}

interface Commands {
  run(command: string, options?: RunOptions): Promise<CommandResult>
  run(command: string, options: RunOptions & { readonly background: true }): Promise<Handle>
  sendStdin(pid: number, text: string): Promise<void>
  list(): Promise<readonly { readonly pid: number }[]>
}

interface Files {
  write(path: string, data: string | Blob): Promise<unknown>
  write(files: readonly { readonly path: string; readonly data: string }[]): Promise<unknown>
  read(path: string): Promise<string>
  list(path: string): Promise<readonly { readonly name: string }[]>
  exists(path: string): Promise<boolean>
  makeDir(path: string): Promise<boolean>
  rename(from: string, to: string): Promise<unknown>
  remove(path: string): Promise<void>
  getInfo(path: string): Promise<{ readonly owner: string; readonly size: number }>
  watchDir(path: string, onEvent: (event: { readonly name: string }) => void): Promise<{ stop(): Promise<void> }>
}

interface Pty {
  create(options: {
    readonly cols: number
    readonly rows: number
    readonly timeoutMs: number
    readonly onData: (bytes: Uint8Array) => void
  }): Promise<Handle>
  resize(pid: number, size: { readonly cols: number; readonly rows: number }): Promise<void>
  sendInput(pid: number, bytes: Uint8Array): Promise<void>
}

export interface E2bSandbox {
  readonly commands: Commands
  readonly files: Files
  readonly pty: Pty
  isRunning(): Promise<boolean>
  downloadUrl(path: string, options?: { readonly useSignatureExpiration?: number }): Promise<string>
  readonly sandboxId: string
  readonly trafficAccessToken?: string
  getHost(port: number): string
  getInfo(): Promise<SandboxInfo>
  setTimeout(timeoutMs: number): Promise<void>
  pause(): Promise<boolean>
  connect(options?: { readonly timeoutMs?: number }): Promise<E2bSandbox>
  kill(): Promise<boolean>
  getMetrics(): Promise<readonly { readonly cpuCount: number; readonly memTotal: number }[]>
  createSnapshot(options?: { readonly name?: string }): Promise<{ readonly snapshotId: string }>
  fork(options?: { readonly count?: number; readonly timeoutMs?: number }): Promise<readonly (E2bSandbox | Error)[]>
  updateNetwork(network: Readonly<Record<string, unknown>>): Promise<void>
}

/** The copies of a fork, which gives an error in the place of each that failed. */
export function copiesOf(results: readonly (E2bSandbox | Error)[]): readonly E2bSandbox[] {
  return results.map((result) => {
    if (result instanceof Error) throw result
    return result
  })
}
