import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { AppError } from '@wrenn/base'
import { embeddedDatabaseUrl } from '@wrenn/postgres'
import { z } from 'zod'
import type { CliConfig } from '../config.js'
import { appBundle, DATABASE, type Layout, type ServiceName } from './layout.js'

const MAX_STDERR_LINES = 20

/** One command of the program of a service, which answers in lines of JSON. */
export interface ServiceRun<Schema extends z.ZodType> {
  readonly service: ServiceName
  readonly args: readonly string[]
  readonly config: CliConfig
  readonly dir: string
  /** Beside what it inherits. */
  readonly env?: Readonly<Record<string, string>>
  /** What it reads from its standard input: secrets, which everybody on the machine could read among its arguments. */
  readonly input?: string
  /** File descriptor of ours that the program has as its 3. */
  readonly passedFd?: number
  /** Of the answer. */
  readonly schema: Schema
  readonly onProgress?: (progress: ServiceProgress) => void
}

const progressSchema = z.looseObject({
  type: z.literal('progress'),
  step: z.string(),
  detail: z.string(),
  fraction: z.number().optional(),
})
/** How far the command is; `fraction` from 0 to 1 where it can be told. */
export type ServiceProgress = z.infer<typeof progressSchema>

const lineSchema = z.discriminatedUnion('type', [
  progressSchema,
  z.looseObject({ type: z.literal('result') }),
  z.looseObject({ type: z.literal('error'), code: z.string(), message: z.string() }),
])

/** Runs a command of the host agent: {@link askService}. */
export async function askHostAgent<Schema extends z.ZodType>(
  run: Omit<ServiceRun<Schema>, 'service'>,
): Promise<z.output<Schema>> {
  return await askService({ service: 'host-agent', ...run })
}

/** Runs a command of the control plane on the platform's database, which must be running: {@link askService}. */
export async function askControlPlane<Schema extends z.ZodType>({
  layout,
  config,
  ...run
}: Pick<ServiceRun<Schema>, 'args' | 'config' | 'schema' | 'onProgress' | 'passedFd'> & {
  readonly layout: Layout
}): Promise<z.output<Schema>> {
  return await askService({
    ...run,
    service: 'control-plane',
    config,
    dir: layout.dir,
    env: {
      DATABASE_URL: config.databaseUrl ?? embeddedDatabaseUrl(layout.postgresDir, DATABASE),
      WRENN_ENCRYPTION_KEY_FILE: layout.encryptionKeyFile,
      WRENN_HOST_AGENT_ADDRESS: `unix:${layout.hostSocket}`,
      // What `wrenn up` may be given in parts is nothing to this, and must not be in its way.
      ...{ WRENN_TLS_PORT: '', WRENN_TLS_CERT: '', WRENN_TLS_KEY: '', WRENN_SMTP_URL: '' },
    },
  })
}

/**
 * Runs one of a service's own commands (`doctor`, `clean`, `image build`): they need the machine, most of them no running
 * platform.
 * @throws AppError what the command failed with, or `engine_failure` when it said nothing that can be read
 */
export async function askService<Schema extends z.ZodType>(run: ServiceRun<Schema>): Promise<z.output<Schema>> {
  const child = spawn(process.execPath, ['--enable-source-maps', appBundle(run.service), ...run.args], {
    env: {
      WRENN_LOG_LEVEL: 'warn',
      ...run.config.inherited,
      WRENN_DIR: run.dir,
      WRENN_UID_BASE: String(run.config.uidBase),
      ...run.env,
    },
    stdio: ['pipe', 'pipe', 'pipe', run.passedFd ?? 'ignore'],
  }) as ChildProcessByStdio<Writable, Readable, Readable> // its first three are pipes
  child.stdin.on('error', () => {}) // EPIPE: it ended without reading, and says why
  child.stdin.end(run.input)
  let result: unknown
  let failure: AppError | undefined
  const said: string[] = []
  createInterface({ input: child.stdout }).on('line', (line) => {
    const event = lineSchema.safeParse(parseJson(line)).data
    if (event?.type === 'result') result = event
    else if (event?.type === 'error') failure = new AppError(event.code, event.message)
    else if (event?.type === 'progress') run.onProgress?.(event)
  })
  createInterface({ input: child.stderr }).on('line', (line) => {
    said.push(line)
    if (said.length > MAX_STDERR_LINES) said.shift()
  })
  const [code, signal]: unknown[] = await once(child, 'close')
  if (failure) throw failure
  const answer = run.schema.safeParse(result)
  if (code === 0 && answer.success) return answer.data
  const how = signal === null ? `exit code ${String(code)}` : String(signal)
  throw new AppError('engine_failure', [`The ${run.service}'s ${run.args[0]} failed (${how}).`, ...said].join('\n  '))
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
