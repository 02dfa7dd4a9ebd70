import { type ChildProcess, spawn } from 'node:child_process'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readApiKey } from './api-key.js'
import { entries } from './host.js'
import { killProcesses } from './leftovers.js'
import { eventually } from './wait.js'

/** Building every image takes a minute; booting the first guest on a slow machine another one. */
const START_TIMEOUT_MS = 600_000
const LOG_TAIL_LINES = 40
/** Of pino: from 40 on. */
const WARNING = /"level":[4-6]0/
const MAX_TOLD_WARNINGS = 6
const MAX_TOLD_OF_NAME = 3

/** A platform started by this suite; plain data, so that it can be handed to the tests. */
export interface Platform {
  readonly url: string
  readonly apiKey: string
  /** WRENN_DIR. */
  readonly dir: string
  readonly instance: string
  /** Copy of the built product that runs. */
  readonly artefacts: string
  /** Whole environment of every `wrenn` that is run. */
  readonly env: Readonly<Record<string, string>>
  readonly port: number
  /** Its listener for TLS, where it has one, and the authority that clients must trust. */
  readonly tls?: { readonly port: number; readonly domain: string; readonly caFile: string }
  /** The provider of OpenID Connect that people sign in with, which a test starts when it needs it. */
  readonly provider?: { readonly port: number; readonly clientSecret: string }
  /** Where it sends spans, to a collector that a test starts when it needs it. */
  readonly collectorPort?: number
  /** Speaks for sites of tests, and is trusted for hosts with rules of egress policies. */
  readonly world?: { readonly cert: string; readonly key: string }
  /** What `wrenn up` prints. */
  readonly log: string
}

declare module 'vitest' {
  export interface ProvidedContext {
    platform: Platform
  }
}

export interface CommandResult {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Starts the built `wrenn`; the caller ends it. */
export function spawnWrenn(
  platform: Pick<Platform, 'artefacts' | 'env'>,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): ChildProcess {
  return spawn(process.execPath, [join(platform.artefacts, 'apps/cli/bin/wrenn.mjs'), ...args], {
    env: { ...platform.env, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
}

/** Runs the built `wrenn` to its end. */
export async function wrenn(
  platform: Pick<Platform, 'artefacts' | 'env'>,
  args: readonly string[],
  options: { readonly input?: string | Uint8Array; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<CommandResult> {
  const child = spawnWrenn(platform, args, options.env)
  return await collect(child, options.input ?? '')
}

/** Everything a child says until it ends. */
export async function collect(child: ChildProcess, input: string | Uint8Array): Promise<CommandResult> {
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk))
  child.stderr?.on('data', (chunk: Buffer) => stderr.push(chunk))
  // It may end without reading its input.
  child.stdin?.on('error', () => {})
  child.stdin?.end(input)
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  return { code, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() }
}

/** Pids of a platform's own processes. */
export interface Pids {
  readonly supervisor: number
  readonly postgres: number
  readonly hostAgent: number
  readonly controlPlane: number
}

/**
 * Starts `wrenn up` and waits until it says that it is ready. It is its own session, so it outlives whoever starts it; `wrenn down`
 * ends it.
 * @throws Error with the ends of all logs when it does not become ready.
 */
export async function up(platform: Omit<Platform, 'apiKey'>): Promise<Pids> {
  const log = await open(platform.log, 'a')
  const { size } = await log.stat()
  const program = join(platform.artefacts, 'apps/cli/bin/wrenn.mjs')
  const child = spawn(process.execPath, [program, 'up', '--port', String(platform.port), '--json'], {
    env: platform.env,
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  })
  await log.close()
  child.unref()
  try {
    const line = await eventually(
      'wrenn up to be ready',
      async () => {
        const said = (await readFile(platform.log)).subarray(size).toString()
        const ready = said.split('\n').find((one) => one.includes('"event":"ready"'))
        if (ready !== undefined) return ready
        if (child.exitCode !== null) throw new Error(`wrenn up ended with exit code ${child.exitCode}.`)
        return undefined
      },
      START_TIMEOUT_MS,
    )
    const { pid, pids }: { pid: number; pids: Omit<Pids, 'supervisor'> } = JSON.parse(line)
    return { supervisor: pid, ...pids }
  } catch (error) {
    throw new Error(`${error instanceof Error ? error.message : String(error)}\n${await logTails(platform)}`)
  }
}

/** Takes down a platform, or a host agent alone, that has its WRENN_DIR in `d`. What could not be removed the caller finds. */
export function takePlatformDown({ artefacts, env }: Pick<Platform, 'artefacts' | 'env'>) {
  return async (scratch: string): Promise<void> => {
    const left = { artefacts, env: { ...env, WRENN_DIR: join(scratch, 'd') } }
    await wrenn(left, ['down', '--stop-capsules'])
    await killProcesses(scratch)
    await wrenn(left, ['clean', '--yes'])
  }
}

/** The last lines of every log, for the message of a failure. */
export async function logTails({ dir, log }: Pick<Platform, 'dir' | 'log'>): Promise<string> {
  const logs = (await entries(join(dir, 'logs'))).map((name) => join(dir, 'logs', name))
  const tails = [log, ...logs].map(async (path) => {
    const text = await readFile(path, 'utf8').catch(() => '')
    return `--- ${path}\n${text.trimEnd().split('\n').slice(-LOG_TAIL_LINES).join('\n')}`
  })
  return (await Promise.all(tails)).join('\n')
}

/** The newest warnings and errors of every log, and what each said last of each of `names`: for the message of a failure. */
export async function lastSaidOf({ dir }: Pick<Platform, 'dir'>, names: readonly string[]): Promise<string> {
  const logs = (await entries(join(dir, 'logs'))).map((name) => join(dir, 'logs', name))
  const told = logs.map(async (path) => {
    const lines = (await readFile(path, 'utf8').catch(() => '')).trimEnd().split('\n')
    const warnings = lines.filter((line) => WARNING.test(line)).slice(-MAX_TOLD_WARNINGS)
    const ofNames = names.flatMap((name) => lines.filter((line) => line.includes(name)).slice(-MAX_TOLD_OF_NAME))
    return [`--- ${path}`, ...warnings, ...ofNames].join('\n')
  })
  return (await Promise.all(told)).join('\n')
}

/** The platform's processes as they are now: a child that was started again has another pid. */
export async function pidsOf({ dir }: Pick<Platform, 'dir'>): Promise<Partial<Record<string, number>>> {
  const record: { children: { name: string; pid: number }[] } = JSON.parse(
    await readFile(join(dir, 'run', 'up.json'), 'utf8'),
  )
  return Object.fromEntries(record.children.map(({ name, pid }) => [name, pid]))
}

/** Adds what is only known once the platform has run. */
export async function withKey(platform: Omit<Platform, 'apiKey'>): Promise<Platform> {
  return { ...platform, apiKey: await readApiKey(platform.dir) }
}
