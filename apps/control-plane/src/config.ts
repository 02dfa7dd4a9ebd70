import { fileURLToPath } from 'node:url'
import { AppError, loadConfig } from '@wrenn/base'
import { type ObjectStoreConfig, objectStoreConfig, objectStoreFields } from '@wrenn/object-store'
import { capsuleDefaults, minimumMemoryMib } from '@wrenn/protocol'
import { readTracing, type TracingConfig } from '@wrenn/tracing'
import { z } from 'zod'
import { parseKey } from './domain/secrets/index.js'
import { type ProviderConfig, readProviders } from './identity/index.js'
import { isApiKey, type LagoConfig } from './lago/index.js'
import { isSender, type MailConfig } from './mail/index.js'
import { type Allowed, parseNetworks } from './notify/index.js'

const integer = (min: number, max: number) => z.coerce.number().int().min(min).max(max)
const MIB = 1024 * 1024
/** Of mails that go to a folder. Nobody can answer to it (RFC 2606 §2). */
const DEFAULT_SENDER = 'Wrenn <wrenn@localhost.invalid>'

/** Variables that a control plane reads, beside those of providers: what each means, its range and default. */
export const environment = z
  .object({
    /** Address to listen on. */
    WRENN_HOST: z.string().default('127.0.0.1'),
    WRENN_PORT: integer(0, 65_535).default(8000),
    /** PostgreSQL 15 or newer. */
    DATABASE_URL: z.string(),
    /** `unix:/path`, `http://host:port`, `https://host:port`, or `joined`: that of the machine that has joined. */
    WRENN_HOST_AGENT_ADDRESS: z.string(),
    /** PEM files for mutual TLS with the host agent. */
    WRENN_HOST_AGENT_CA: z.string().optional(),
    WRENN_HOST_AGENT_CERT: z.string().optional(),
    WRENN_HOST_AGENT_KEY: z.string().optional(),
    /**
     * A second listener for TLS, on the same address when none is given; its certificate chain and key, as PEM files, are read again when they change.
     */
    WRENN_TLS_HOST: z.string().optional(),
    WRENN_TLS_PORT: integer(0, 65_535).optional(),
    WRENN_TLS_CERT: z.string().optional(),
    WRENN_TLS_KEY: z.string().optional(),
    /** Names below which each port of a capsule has one, separated by commas; the first is told to clients. */
    WRENN_PROXY_DOMAIN: z
      .string()
      .toLowerCase()
      .regex(
        /^\s*[a-z0-9.-]+(?::\d{1,5})?(?:\s*,\s*[a-z0-9.-]+(?::\d{1,5})?)*\s*$/,
        'must be host names, such as sbx.example',
      )
      .default('localhost'),
    /** Requests and upgraded connections of one capsule through the proxy at a time. */
    WRENN_PROXY_MAX_CONNECTIONS: integer(1, 1_000_000).default(12_000),
    /** Origins of web pages that may use the API, separated by commas; `*` is any. */
    WRENN_CORS_ORIGINS: z.string().default('*'),
    /** Where the first API key is written when the database has none; made when missing, if its folder may be written. */
    WRENN_API_KEY_FILE: z.string().optional(),
    /** Where the code that makes the first account is written at each start while nobody has one; made as the key's file is. */
    WRENN_SETUP_FILE: z.string().optional(),
    /**
     * What secrets that the platform must read itself are encrypted with: 64 hexadecimal digits or base64 of 32 bytes. Of several, separated by
     * commas, the first one encrypts.
     */
    WRENN_ENCRYPTION_KEY: z
      .string()
      .refine((value) => listed(value).every((key) => parseKey(key) !== undefined), 'must be 64 hexadecimal digits')
      .default(''),
    /** The same in a file, one a line, for when these have none or another; one is made where it is empty. */
    WRENN_ENCRYPTION_KEY_FILE: z.string().optional(),
    /** Where people reach this platform, for links in mails and as the name that passkeys are made for; may have a path. */
    WRENN_PUBLIC_URL: z.url({ protocol: /^https?$/ }).optional(),
    /** `smtp://` or `smtps://` with host and, where needed, port, user and password: docs/mail.md. */
    WRENN_SMTP_URL: z.url({ protocol: /^smtps?$/, hostname: /./ }).optional(),
    /** PEM file of authorities that the mail server's certificate may be of, instead of the system's. */
    WRENN_SMTP_CA: z.string().optional(),
    /** `Name <address>` or an address. */
    WRENN_MAIL_FROM: z.string().refine(isSender, 'must be an address, or a name and <address>').optional(),
    /** Without a mail server each mail becomes a file in this folder. */
    WRENN_MAIL_OUTBOX: z.string().optional(),
    /** Who may sign up: `open`, `closed` (once there is an account), or mail domains, separated by commas. */
    WRENN_SIGNUP: z
      .string()
      .trim()
      .toLowerCase()
      .regex(
        /^(?:open|closed|[a-z0-9-]+(?:\.[a-z0-9-]+)+(?:\s*,\s*[a-z0-9-]+(?:\.[a-z0-9-]+)+)*)$/,
        'must be open, closed, or mail domains such as example.com',
      )
      .default('closed'),
    /** How long people can take back that they deleted their account. */
    WRENN_ACCOUNT_GRACE_DAYS: integer(0, 3650).default(15),
    /** How long accounts are kept that nobody activates; 0: for ever. */
    WRENN_PENDING_ACCOUNT_DAYS: integer(0, 3650).default(14),
    /** Addresses or networks (CIDR) of proxies before this one, separated by commas: whom they name as the client is believed. */
    WRENN_TRUSTED_PROXIES: z.string().default(''),
    /** The built dashboard. */
    WRENN_DASHBOARD: z.string().default(fileURLToPath(new URL('dashboard.pack', import.meta.url))),
    WRENN_LOG_LEVEL: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
    WRENN_DATABASE_CONNECTIONS: integer(3, 1000).default(10),
    /** These are named after the field of the API that they bound; its `_mb` counts MiB. */
    WRENN_MAX_VCPUS: integer(1, 1024).default(8),
    WRENN_MAX_MEMORY_MB: integer(minimumMemoryMib, 4_194_304).default(16_384),
    WRENN_MAX_DISK_SIZE_MB: integer(64, 67_108_864).default(102_400),
    WRENN_DEFAULT_DISK_SIZE_MB: integer(64, 67_108_864).default(capsuleDefaults.diskSizeMib),
    /** Capsules of a team that are not stopped; 0 means no limit. */
    WRENN_MAX_CAPSULES: integer(0, 1_000_000).default(500),
    /** Of each team, unless its row says otherwise; 0 means no limit. */
    WRENN_QUOTA_RUNNING_CAPSULES: integer(0, 1_000_000).default(0),
    WRENN_QUOTA_VCPUS: integer(0, 1_000_000).default(0),
    WRENN_QUOTA_MEMORY_MB: integer(0, 2 ** 40).default(0),
    WRENN_QUOTA_POOL_BYTES: integer(0, 2 ** 53).default(0),
    WRENN_QUOTA_CREATING_CAPSULES: integer(0, 1_000_000).default(0),
    WRENN_QUOTA_API_CALLS_PER_MIN: integer(0, 1_000_000).default(0),
    /** Output of one stream that a foreground exec answers with. */
    WRENN_EXEC_OUTPUT_LIMIT_MIB: integer(1, 512).default(64),
    /** How long a create may take before it counts as failed. */
    WRENN_CREATE_TIMEOUT_SEC: integer(5, 3600).default(300),
    /** How long a create is tried again while its host is away, as during a restart of the host agent. */
    WRENN_CREATE_RETRY_SEC: integer(0, 3600).default(60),
    /** How long a pause, resume, fork, rollback or the making of a checkpoint or snapshot may take on the host. */
    WRENN_LIFECYCLE_TIMEOUT_SEC: integer(5, 3600).default(300),
    /** How long a build of a template may take, from when it is taken up. */
    WRENN_BUILD_TIMEOUT_SEC: integer(10, 86_400).default(3600),
    /** How long the ready command of a template may take to succeed. */
    WRENN_BUILD_READY_SEC: integer(1, 86_400).default(300),
    /** Builds that one control plane carries out at a time. */
    WRENN_BUILD_CONCURRENCY: integer(1, 100).default(2),
    /** Builds of a team that have not ended. */
    WRENN_BUILD_MAX_OPEN: integer(1, 10_000).default(50),
    /** Folder for the files that builds copy; without one they are refused. */
    WRENN_BUILD_FILES_DIR: z.string().optional(),
    /** Size of one upload, and of all uploads of a team that are kept. */
    WRENN_BUILD_UPLOAD_MAX_MIB: integer(1, 1_048_576).default(4096),
    WRENN_BUILD_FILES_MAX_MIB: integer(1, 67_108_864).default(8192),
    /** What a build says, with some bytes for each line. */
    WRENN_BUILD_LOG_MAX_MIB: integer(1, 1024).default(4),
    /** Results of steps that are kept of a team for later builds; 0: none. */
    WRENN_BUILD_CACHE_RESULTS: integer(0, 10_000).default(50),
    /** How long results and uploads are kept that no build uses. */
    WRENN_BUILD_CACHE_DAYS: integer(1, 36_500).default(14),
    /** How long the API still knows capsules that have ended. */
    WRENN_ENDED_RETENTION_DAYS: integer(0, 36_500).default(30),
    /** How long entries of the audit trail are kept; 0: for ever. */
    WRENN_AUDIT_RETENTION_DAYS: integer(0, 36_500).default(365),
    /** Addresses and networks (CIDR), separated by commas, that channels may send to beside public ones; there also without TLS. */
    WRENN_CHANNEL_ALLOW: z
      .string()
      .refine((value) => parseNetworks(value) !== undefined, 'must be addresses or networks, such as 10.1.0.0/16')
      .default(''),
    /** How long an event is tried to be sent to a channel. */
    WRENN_CHANNEL_RETRY_HOURS: integer(1, 720).default(24),
    /** How long the log of channels is kept. */
    WRENN_CHANNEL_LOG_DAYS: integer(1, 365).default(7),
    /** How long the ledger of usage is kept, of which its sums can be checked and made anew; 0: for ever. */
    WRENN_USAGE_LEDGER_DAYS: integer(0, 36_500).default(100),
    /** How long sums of usage are kept, by whole months; 0: for ever. */
    WRENN_USAGE_RETENTION_DAYS: integer(0, 36_500).default(0),
    /** Address of a Lago that is told what teams used; may have a path. */
    WRENN_LAGO_URL: z
      .url({ protocol: /^https?$/, hostname: /./ })
      .refine((value) => new URL(value).username === '' && new URL(value).password === '', 'must be without a login')
      .optional(),
    /** What Lago knows the platform by, or a file that has it. */
    WRENN_LAGO_API_KEY: z.string().refine(isApiKey, 'must be printable characters without spaces').optional(),
    WRENN_LAGO_API_KEY_FILE: z.string().optional(),
    /** The first day that Lago is told of, in UTC. */
    WRENN_LAGO_FROM: z.iso.date('must be a date, such as 2026-11-30').optional(),
    /** How long a call on a capsule that is starting waits for it. */
    WRENN_START_WAIT_SEC: integer(0, 600).default(60),
    /** How long a host may be silent before its capsules count as missing. */
    WRENN_HOST_SILENT_SEC: integer(1, 3600).default(45),
    /** Of hosts that have joined: vCPUs of capsules for each CPU that one has. */
    WRENN_HOST_VCPUS_PER_CPU: integer(1, 1000).default(4),
    /** The same: how much of its memory is promised to capsules, in percent; above 100 it is promised more than once. */
    WRENN_HOST_MEMORY_PERCENT: integer(1, 10_000).default(90),
    /** The same: whether capsules go to the host with the most room, or to the fullest one that has enough. */
    WRENN_PLACEMENT: z.enum(['spread', 'pack']).default('spread'),
    /** How long a host may answer without a capsule before that counts as lost. */
    WRENN_LOST_GRACE_SEC: integer(0, 3600).default(10),
    /** How long a capsule is paused before it hibernates by itself, where there is an object store; 0: it does not. */
    WRENN_HIBERNATE_AFTER_SEC: integer(0, 315_360_000).default(0),
    ...objectStoreFields,
    /** For tests of crashes: a file that names a step to break at (see packages/base/src/steps.ts). */
    WRENN_STEP_FILE: z.string().optional(),
  })
  .refine((values) => values.WRENN_SMTP_URL === undefined || values.WRENN_MAIL_FROM !== undefined, {
    path: ['WRENN_MAIL_FROM'],
    message: 'must say whom mails are from, as WRENN_SMTP_URL is set',
  })
  .refine(
    ({ WRENN_USAGE_LEDGER_DAYS: ledger, WRENN_USAGE_RETENTION_DAYS: sums }) =>
      sums === 0 || (ledger > 0 && ledger <= sums),
    {
      path: ['WRENN_USAGE_RETENTION_DAYS'],
      message: 'must not be less than WRENN_USAGE_LEDGER_DAYS: sums are made of what the ledger keeps',
    },
  )
  .refine(
    ({ WRENN_LAGO_URL: url, WRENN_LAGO_API_KEY: key, WRENN_LAGO_API_KEY_FILE: file }) =>
      (url === undefined) === (key === undefined && file === undefined) && (key === undefined || file === undefined),
    {
      path: ['WRENN_LAGO_API_KEY'],
      message: 'and WRENN_LAGO_URL are set together or not at all, the key here or in WRENN_LAGO_API_KEY_FILE',
    },
  )

/** Who may sign up: everybody, those with an address in one of the domains, or, once there is an account, nobody. */
export type SignUpRule = 'open' | 'closed' | readonly string[]

/**
 * What this platform allows. A request that wants more than a `max…` is `invalid_request`, one beyond a quota
 * `pool_exhausted`.
 */
export interface Limits {
  readonly maxVcpus: number
  readonly maxMemoryMib: number
  readonly maxDiskSizeMib: number
  readonly defaultDiskSizeMib: number
  /** Of a team, those that have not ended; 0: no limit. */
  readonly maxCapsules: number
  /** Of a team that has none of its own or of a plan; 0: no limit. */
  readonly quota: {
    readonly runningCapsules: number
    readonly vcpus: number
    readonly memoryMib: number
    readonly poolBytes: number
    readonly creatingCapsules: number
    readonly apiCallsPerMin: number
  }
  /** How much of a host that has joined is promised to capsules. */
  readonly hosts: {
    /** Of capsules, for each CPU that it has. */
    readonly vcpusPerCpu: number
    /** Of its memory; above 100 it is promised more than once. */
    readonly memoryPercent: number
    /** To the host with the most room, or to the fullest one that has enough. */
    readonly placement: 'spread' | 'pack'
  }
  readonly maxLabels: number
  /** Of each stream in the answer of a foreground exec; what is beyond it is dropped and `truncated` says so. */
  readonly execOutputBytes: number
}

/** What channels may send to, and how long they try. */
export interface ChannelSettings {
  /** Beside public addresses. */
  readonly allowed: Allowed
  readonly giveUpMs: number
  readonly keepMs: number
}

/** What builds of templates may take. */
export interface BuildLimits {
  readonly timeoutMs: number
  readonly readyWithinMs: number
  /** Of one control plane. */
  readonly concurrency: number
  /** Of a team, those that have not ended. */
  readonly maxOpen: number
  /** `undefined`: builds that copy files are refused. */
  readonly filesDir: string | undefined
  readonly uploadBytes: number
  /** Of a team. */
  readonly filesBytes: number
  readonly logBytes: number
  /** Of a team; 0: nothing is kept. */
  readonly cacheResults: number
  readonly cacheMs: number
}

/**
 * PEM files for an `https://` address of the host agent: whom to trust, and who we are. TLS 1.3 at least; read once, at the
 * start.
 */
export interface HostAgentTls {
  readonly caFile: string | undefined
  readonly certFile: string | undefined
  readonly keyFile: string | undefined
}

/** The listener for TLS. */
export interface TlsConfig {
  readonly host: string
  readonly port: number
  /** PEM: the certificate and what leads to its root. */
  readonly certFile: string
  readonly keyFile: string
}

/** The environment, read once: `environment` above says what each variable means, with its default and range. */
export interface ControlPlaneConfig {
  readonly host: string
  readonly port: number
  readonly tls: TlsConfig | undefined
  readonly databaseUrl: string
  readonly databaseConnections: number
  readonly hostAgentAddress: string
  readonly hostAgentTls: HostAgentTls
  /** Of the port proxy; each may name the port that clients reach it at. */
  readonly proxyDomains: readonly string[]
  readonly proxyMaxConnections: number
  readonly corsOrigins: readonly string[]
  /** Without a slash at its end. */
  readonly publicUrl: string
  readonly mail: MailConfig
  readonly signUp: SignUpRule
  readonly accountGraceSec: number
  /** How long accounts are kept that nobody activates; 0: for ever. */
  readonly pendingAccountSec: number
  /** That people can sign in with. */
  readonly providers: readonly ProviderConfig[]
  readonly trustedProxies: readonly string[]
  /** Of the environment; those of the file come after them. */
  readonly encryptionKeys: readonly Buffer[]
  readonly encryptionKeyFile: string | undefined
  readonly apiKeyFile: string | undefined
  readonly setUpFile: string | undefined
  /** Beside the program where nothing else is said. */
  readonly dashboardFile: string
  readonly logLevel: string
  readonly tracing: TracingConfig
  readonly createTimeoutMs: number
  readonly createRetryMs: number
  readonly retentionMs: number
  readonly auditRetentionMs: number
  /** 0: for ever, both. */
  readonly usageLedgerDays: number
  readonly usageRetentionDays: number
  /** `undefined`: usage is told to nobody. */
  readonly lago: LagoConfig | undefined
  /** Where hibernated capsules are. */
  readonly objectStore: ObjectStoreConfig | undefined
  /** How long a capsule is paused before it hibernates by itself; `undefined`: it does not. */
  readonly hibernateAfterSec: number | undefined
  readonly startWaitMs: number
  readonly hostSilentMs: number
  readonly lostGraceMs: number
  readonly lifecycleTimeoutMs: number
  readonly stepFile: string | undefined
  readonly limits: Limits
  readonly builds: BuildLimits
  readonly channels: ChannelSettings
}

/** @throws AppError `invalid_config`, naming every variable that is wrong. */
export function readConfig(env: Readonly<Record<string, string | undefined>> = process.env): ControlPlaneConfig {
  const values = loadConfig(environment, env)
  return {
    host: values.WRENN_HOST,
    port: values.WRENN_PORT,
    tls: readTls(values),
    databaseUrl: values.DATABASE_URL,
    databaseConnections: values.WRENN_DATABASE_CONNECTIONS,
    hostAgentAddress: values.WRENN_HOST_AGENT_ADDRESS,
    hostAgentTls: {
      caFile: values.WRENN_HOST_AGENT_CA,
      certFile: values.WRENN_HOST_AGENT_CERT,
      keyFile: values.WRENN_HOST_AGENT_KEY,
    },
    proxyDomains: values.WRENN_PROXY_DOMAIN.split(',').map((domain) => domain.trim()),
    proxyMaxConnections: values.WRENN_PROXY_MAX_CONNECTIONS,
    corsOrigins: values.WRENN_CORS_ORIGINS.split(',')
      .map((origin) => origin.trim().replace(/\/$/, ''))
      .filter((origin) => origin !== ''),
    publicUrl: (values.WRENN_PUBLIC_URL ?? localUrl(values.WRENN_HOST, values.WRENN_PORT)).replace(/\/+$/, ''),
    mail: {
      from: values.WRENN_MAIL_FROM ?? DEFAULT_SENDER,
      smtpUrl: values.WRENN_SMTP_URL,
      smtpCaFile: values.WRENN_SMTP_CA,
      outboxDir: values.WRENN_MAIL_OUTBOX,
    },
    signUp: signUpRule(values.WRENN_SIGNUP),
    accountGraceSec: values.WRENN_ACCOUNT_GRACE_DAYS * 24 * 3600,
    pendingAccountSec: values.WRENN_PENDING_ACCOUNT_DAYS * 24 * 3600,
    providers: readProviders(env),
    trustedProxies: listed(values.WRENN_TRUSTED_PROXIES),
    encryptionKeys: listed(values.WRENN_ENCRYPTION_KEY)
      .map(parseKey)
      .filter((key) => key !== undefined),
    encryptionKeyFile: values.WRENN_ENCRYPTION_KEY_FILE,
    apiKeyFile: values.WRENN_API_KEY_FILE,
    setUpFile: values.WRENN_SETUP_FILE,
    dashboardFile: values.WRENN_DASHBOARD,
    logLevel: values.WRENN_LOG_LEVEL,
    tracing: readTracing(env),
    createTimeoutMs: values.WRENN_CREATE_TIMEOUT_SEC * 1000,
    createRetryMs: values.WRENN_CREATE_RETRY_SEC * 1000,
    retentionMs: values.WRENN_ENDED_RETENTION_DAYS * 24 * 3600 * 1000,
    auditRetentionMs: values.WRENN_AUDIT_RETENTION_DAYS * 24 * 3600 * 1000,
    usageLedgerDays: values.WRENN_USAGE_LEDGER_DAYS,
    usageRetentionDays: values.WRENN_USAGE_RETENTION_DAYS,
    lago: readLago(values),
    objectStore: objectStoreConfig(values),
    hibernateAfterSec: values.WRENN_HIBERNATE_AFTER_SEC || undefined,
    startWaitMs: values.WRENN_START_WAIT_SEC * 1000,
    hostSilentMs: values.WRENN_HOST_SILENT_SEC * 1000,
    lostGraceMs: values.WRENN_LOST_GRACE_SEC * 1000,
    lifecycleTimeoutMs: values.WRENN_LIFECYCLE_TIMEOUT_SEC * 1000,
    stepFile: values.WRENN_STEP_FILE,
    builds: readBuilds(values),
    channels: {
      allowed: parseNetworks(values.WRENN_CHANNEL_ALLOW) ?? [],
      giveUpMs: values.WRENN_CHANNEL_RETRY_HOURS * 3600 * 1000,
      keepMs: values.WRENN_CHANNEL_LOG_DAYS * 24 * 3600 * 1000,
    },
    limits: {
      maxVcpus: values.WRENN_MAX_VCPUS,
      maxMemoryMib: values.WRENN_MAX_MEMORY_MB,
      maxDiskSizeMib: values.WRENN_MAX_DISK_SIZE_MB,
      defaultDiskSizeMib: values.WRENN_DEFAULT_DISK_SIZE_MB,
      maxCapsules: values.WRENN_MAX_CAPSULES,
      quota: {
        runningCapsules: values.WRENN_QUOTA_RUNNING_CAPSULES,
        vcpus: values.WRENN_QUOTA_VCPUS,
        memoryMib: values.WRENN_QUOTA_MEMORY_MB,
        poolBytes: values.WRENN_QUOTA_POOL_BYTES,
        creatingCapsules: values.WRENN_QUOTA_CREATING_CAPSULES,
        apiCallsPerMin: values.WRENN_QUOTA_API_CALLS_PER_MIN,
      },
      hosts: {
        vcpusPerCpu: values.WRENN_HOST_VCPUS_PER_CPU,
        memoryPercent: values.WRENN_HOST_MEMORY_PERCENT,
        placement: values.WRENN_PLACEMENT,
      },
      maxLabels: 64,
      execOutputBytes: values.WRENN_EXEC_OUTPUT_LIMIT_MIB * MIB,
    },
  }
}

function readBuilds(values: z.infer<typeof environment>): BuildLimits {
  return {
    timeoutMs: values.WRENN_BUILD_TIMEOUT_SEC * 1000,
    readyWithinMs: values.WRENN_BUILD_READY_SEC * 1000,
    concurrency: values.WRENN_BUILD_CONCURRENCY,
    maxOpen: values.WRENN_BUILD_MAX_OPEN,
    filesDir: values.WRENN_BUILD_FILES_DIR,
    uploadBytes: values.WRENN_BUILD_UPLOAD_MAX_MIB * MIB,
    filesBytes: values.WRENN_BUILD_FILES_MAX_MIB * MIB,
    logBytes: values.WRENN_BUILD_LOG_MAX_MIB * MIB,
    cacheResults: values.WRENN_BUILD_CACHE_RESULTS,
    cacheMs: values.WRENN_BUILD_CACHE_DAYS * 24 * 3600 * 1000,
  }
}

function readLago(values: z.infer<typeof environment>): LagoConfig | undefined {
  const { WRENN_LAGO_URL: url, WRENN_LAGO_API_KEY: apiKey, WRENN_LAGO_API_KEY_FILE: apiKeyFile } = values
  if (url === undefined) return undefined
  return { url: url.replace(/(?:\/api\/v1)?\/*$/, ''), apiKey, apiKeyFile, from: values.WRENN_LAGO_FROM }
}

/** Good on this machine only. */
function localUrl(host: string, port: number): string {
  const reachable = ['0.0.0.0', '::'].includes(host) ? 'localhost' : host
  return `http://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`
}

function readTls(values: z.infer<typeof environment>): TlsConfig | undefined {
  const { WRENN_TLS_PORT: port, WRENN_TLS_CERT: certFile, WRENN_TLS_KEY: keyFile } = values
  if (port === undefined && certFile === undefined && keyFile === undefined) return undefined
  const host = values.WRENN_TLS_HOST ?? values.WRENN_HOST
  if (port !== undefined && certFile !== undefined && keyFile !== undefined) return { host, port, certFile, keyFile }
  const message = 'WRENN_TLS_PORT, WRENN_TLS_CERT and WRENN_TLS_KEY are set together or not at all.'
  throw new AppError('invalid_config', `The configuration is not usable: ${message}`)
}

function signUpRule(text: string): SignUpRule {
  return text === 'open' || text === 'closed' ? text : listed(text)
}

function listed(text: string): string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
}
