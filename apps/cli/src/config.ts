import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { loadConfig } from '@wrenn/base'
import { z } from 'zod'

const integer = (min: number, max: number) => z.coerce.number().int().min(min).max(max)

/** Variables that the command line reads. */
export const environment = z.object({
  WRENN_DIR: z.string().startsWith('/', 'must be an absolute path').default('/var/lib/wrenn'),
  WRENN_API_URL: z.url({ protocol: /^https?$/ }).optional(),
  WRENN_API_KEY: z.string().optional(),
  WRENN_LOGINS: z.string().startsWith('/', 'must be an absolute path').optional(),
  XDG_CONFIG_HOME: z.string().optional(),
  HOME: z.string().optional(),
  WRENN_HOST: z.string().default('127.0.0.1'),
  WRENN_PORT: integer(0, 65_535).default(8000),
  WRENN_PROXY_DOMAIN: z.string().optional(),
  WRENN_TLS_HOST: z.string().optional(),
  WRENN_TLS_PORT: integer(0, 65_535).optional(),
  WRENN_TLS_CERT: z.string().optional(),
  WRENN_TLS_KEY: z.string().optional(),
  /** Where people reach the platform. */
  WRENN_PUBLIC_URL: z.url({ protocol: /^https?$/ }).optional(),
  WRENN_ENGINE: z.string().optional(),
  /** Whether the capsules of `wrenn up` run on a machine that joins. */
  WRENN_REMOTE_HOST: z.enum(['0', '1', 'true', 'false']).default('0'),
  WRENN_UID_BASE: integer(1000, 2 ** 30).default(500_000),
  DATABASE_URL: z.string().optional(),
  /** The longest that `wrenn up` waits before it starts a child again that keeps dying. */
  WRENN_MAX_RESTART_DELAY_MS: integer(50, 600_000).default(15_000),
  /** Of a service manager that waits until the platform is ready. */
  NOTIFY_SOCKET: z.string().optional(),
  NO_COLOR: z.string().optional(),
  TERM: z.string().optional(),
})

/** The environment, read once. Only commands of the machine use more than where the platform is; `--dir` replaces `dir`. */
export interface CliConfig {
  readonly dir: string
  /** @default the `wrenn up` of `dir`, else http://127.0.0.1:<port> */
  readonly apiUrl: string | undefined
  /** @default the file api-key in `dir` */
  readonly apiKey: string | undefined
  /** Where `wrenn login` keeps sessions. @default wrenn/logins.json where the user's programs keep settings */
  readonly loginsFile: string
  readonly host: string
  readonly port: number
  /** @default localhost, which the control plane says */
  readonly proxyDomain: string | undefined
  /** Of the listener for TLS, which is there when one of port, certificate and key is set. */
  readonly tls: {
    readonly host: string | undefined
    readonly port: number | undefined
    readonly certFile: string | undefined
    readonly keyFile: string | undefined
  }
  /** @default the address that the platform listens on */
  readonly publicUrl: string | undefined
  readonly engine: string | undefined
  readonly remoteHost: boolean
  readonly uidBase: number
  readonly databaseUrl: string | undefined
  readonly maxRestartDelayMs: number
  /** Whether people want colours at all; each stream has some only while it is a terminal. */
  readonly notifySocket: string | undefined
  readonly color: boolean
  readonly term: string
  /** What children started by `wrenn up` inherit. */
  readonly inherited: Readonly<Record<string, string | undefined>>
}

/** @throws AppError `invalid_config`, naming every variable that is wrong. */
export function readConfig(env: Readonly<Record<string, string | undefined>> = process.env): CliConfig {
  const values = loadConfig(environment, env)
  return {
    dir: values.WRENN_DIR,
    apiUrl: values.WRENN_API_URL,
    apiKey: values.WRENN_API_KEY?.trim() || undefined,
    loginsFile: values.WRENN_LOGINS ?? join(settingsFolder(values), 'wrenn/logins.json'),
    host: values.WRENN_HOST,
    port: values.WRENN_PORT,
    proxyDomain: values.WRENN_PROXY_DOMAIN,
    tls: {
      host: values.WRENN_TLS_HOST,
      port: values.WRENN_TLS_PORT,
      certFile: values.WRENN_TLS_CERT,
      keyFile: values.WRENN_TLS_KEY,
    },
    publicUrl: values.WRENN_PUBLIC_URL,
    engine: values.WRENN_ENGINE,
    remoteHost: ['1', 'true'].includes(values.WRENN_REMOTE_HOST),
    uidBase: values.WRENN_UID_BASE,
    databaseUrl: values.DATABASE_URL,
    maxRestartDelayMs: values.WRENN_MAX_RESTART_DELAY_MS,
    notifySocket: values.NOTIFY_SOCKET,
    color: values.NO_COLOR === undefined && values.TERM !== 'dumb',
    term: values.TERM ?? 'xterm-256color',
    inherited: { ...env, NOTIFY_SOCKET: undefined },
  }
}

/** By the XDG Base Directory Specification, which has a relative path ignored. */
function settingsFolder({ XDG_CONFIG_HOME, HOME }: z.output<typeof environment>): string {
  if (XDG_CONFIG_HOME !== undefined && isAbsolute(XDG_CONFIG_HOME)) return XDG_CONFIG_HOME
  return join(HOME || homedir(), '.config')
}

/** A variable that the user names, such as one with a secret. */
export function environmentVariable(name: string): string | undefined {
  return process.env[name]
}
