import { type Cidr, loadConfig, parseCidr } from '@wrenn/base'
import { type ObjectStoreConfig, objectStoreConfig, objectStoreFields } from '@wrenn/object-store'
import { readTracing, type TracingConfig } from '@wrenn/tracing'
import { z } from 'zod'

const integer = (min: number, max: number) => z.coerce.number().int().min(min).max(max)
const flag = z.enum(['0', '1', 'true', 'false']).transform((text) => text === '1' || text === 'true')

const listOf = (text: string): readonly string[] =>
  text
    .split(',')
    .map((part) => part.trim().toLowerCase())
    .filter((part) => part !== '')
const hosts = z
  .string()
  .refine(
    (text) => listOf(text).every((one) => /^(?:\*\.)?[a-z0-9][a-z0-9.-]*(?::\d{1,5})?$/.test(one)),
    'must be hosts, such as ghcr.io or 10.1.2.3:5000',
  )
  .default('')
  .transform(listOf)
const registries = hosts
  .refine((all) => all.length < 2 || !all.includes('none'), 'must be hosts, or `none` alone')
  .transform((all) => (all.includes('none') ? ('none' as const) : all))
const allowedNetworks = z
  .string()
  .refine(
    (text) => listOf(text).every((one) => parseAllowed(one) !== undefined),
    'must be IPv4 addresses or networks, each with a port or without: 10.1.2.3:5000, 10.1.0.0/16',
  )
  .default('')
  .transform((text) => listOf(text).flatMap((one) => parseAllowed(one) ?? []))

/** A network, and the one port that is meant; absent: all of them. */
interface AllowedNetwork {
  readonly network: Cidr
  readonly port?: number
}

/** Reads `network[:port]`. */
function parseAllowed(text: string): AllowedNetwork | undefined {
  const [, where = '', digits] = /^([^:]*)(?::(\d{1,5}))?$/.exec(text) ?? []
  const network = parseCidr(where)
  const port = digits === undefined ? undefined : Number(digits)
  if (network === undefined || port === 0 || (port ?? 0) > 65_535) return undefined
  return { network, ...(port === undefined ? {} : { port }) }
}

/** Variables that the host agent reads: what each means, its range and default. */
export const environment = z.object({
  /** Everything the platform keeps. */
  WRENN_DIR: z.string().startsWith('/', 'must be an absolute path').default('/var/lib/wrenn'),
  /** Unix socket the control plane calls; default `<dir>/run/host-agent.sock`. */
  WRENN_HOST_AGENT_SOCKET: z.string().optional(),
  /** Owner of that socket: the control plane's uid and gid. */
  WRENN_SOCKET_UID: integer(0, 2 ** 31).default(0),
  WRENN_SOCKET_GID: integer(0, 2 ** 31).default(0),
  /** Skips the choice by booting: `qemu-kvm` or `qemu-tcg`. */
  WRENN_ENGINE: z.enum(['qemu-kvm', 'qemu-tcg']).optional(),
  /** QEMU's program: an absolute path, or a name on the system's path. */
  WRENN_QEMU: z
    .string()
    .regex(/^(\/.*|[^/]+)$/, 'must be an absolute path, or the name of a program')
    .optional(),
  /** Name prefix of namespaces, links, tables and cgroups; two platforms on one machine need two. */
  WRENN_INSTANCE: z
    .string()
    .regex(/^[a-z][a-z0-9]{0,7}$/, 'must be 1 to 8 lower-case letters and digits, a letter first')
    .default('wrenn'),
  /** Addresses for the host's side of the capsules' network. */
  WRENN_NETWORK_CIDR: z.string().default('10.201.0.0/16'),
  /** First uid of a block: capsules run as base + 100 + slot. Above what Debian and systemd hand out. */
  WRENN_UID_BASE: integer(1000, 2 ** 30).default(500_000),
  /** Most hot VMs per shape; 0 turns the hot pool off. */
  WRENN_HOT_POOL_MAX: integer(0, 64).default(4),
  /** Hot VMs that the default shape keeps even when idle. */
  WRENN_HOT_POOL_MIN: integer(0, 64).default(1),
  /** Prepared network namespaces waiting for a capsule. */
  WRENN_SLOT_POOL: integer(0, 256).default(4),
  /** Names the servers that answer the capsules' look-ups, in the form of resolv.conf(5); read again when it changes. */
  WRENN_RESOLV_CONF: z.string().startsWith('/', 'must be an absolute path').default('/etc/resolv.conf'),
  /**
   * Registries that images may be fetched from, `host[:port]` or `*.domain` each, separated by commas; none: any on a public address; `none`:
   * nothing is fetched.
   */
  WRENN_REGISTRIES: registries,
  /** Networks in which registries may be beside public addresses, `network[:port]` each; without a port at every one. */
  WRENN_REGISTRIES_ALLOW: allowedNetworks,
  /** Registries that are spoken to without TLS; a host alone at every port. */
  WRENN_REGISTRIES_PLAIN: hosts,
  /** What one image may take, unpacked. */
  WRENN_IMAGE_MAX_MIB: integer(16, 2 ** 20).default(16_384),
  WRENN_IMAGE_MAX_FILES: integer(100, 10_000_000).default(1_000_000),
  /** What all fetched images may take together. */
  WRENN_IMAGES_TOTAL_MIB: integer(16, 2 ** 30).default(65_536),
  /** How long a fetched image stays that nothing boots from. */
  WRENN_IMAGE_KEEP_HOURS: integer(1, 24 * 365).default(24),
  /** Certificates, as PEM, that hosts with rules of an egress policy may have beside public ones. */
  WRENN_EGRESS_CA_FILE: z.string().startsWith('/', 'must be an absolute path').optional(),
  /** Size of the pool image in MiB where the directory's file system has no reflink; default 80 % of the free space. */
  WRENN_POOL_SIZE_MIB: integer(1024, 2 ** 30).optional(),
  /** Directory with the bundled guest agent and its native addon; default: the one built beside this program. */
  WRENN_GUEST_AGENT_DIR: z.string().optional(),
  /** Memory kept available for the host: below it idle capsules are paused; default the larger of 512 MiB and 5 %. */
  WRENN_MEMORY_RESERVE_MIB: integer(0, 2 ** 30).optional(),
  /** Room kept in the pool: below it capsules that write are paused; default the larger of 1 GiB and 3 %. */
  WRENN_POOL_RESERVE_MIB: integer(0, 2 ** 30).optional(),
  /** How long a call waits for any sign of its guest before it is answered by `guest_unreachable`. */
  WRENN_GUEST_SILENCE_SEC: integer(5, 3600).default(30),
  /** Where saved states go that leave their host. */
  ...objectStoreFields,
  /** Of what goes to and comes from there, all transfers of this host together; default: no limit. */
  WRENN_OBJECT_STORE_MIB_PER_SEC: integer(1, 2 ** 20).optional(),
  /** Whether a hibernated capsule runs before its memory is whole, where the machine has /dev/fuse; else all of it is fetched first. */
  WRENN_LAZY_RESUME: flag.default(true),
  /** For tests of crashes: a file that names a step to break at (see packages/base/src/steps.ts). */
  WRENN_STEP_FILE: z.string().optional(),
  WRENN_STOP_CAPSULES_ON_EXIT: flag.default(false),
  WRENN_LOG_LEVEL: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
})

/**
 * The environment, read once: `environment` above says what each variable means. Sizes are bytes here and MiB there; `undefined`
 * leaves the choice to the part that it is for.
 */
export interface HostAgentConfig {
  readonly dir: string
  readonly socketPath: string
  readonly socketUid: number
  readonly socketGid: number
  readonly engine: 'qemu-kvm' | 'qemu-tcg' | undefined
  readonly qemu: string | undefined
  readonly instance: string
  readonly networkCidr: string
  readonly uidBase: number
  readonly hotPoolMax: number
  readonly hotPoolMin: number
  readonly slotPool: number
  readonly resolvConfPath: string
  readonly registries: {
    readonly registries: readonly string[] | 'none'
    readonly allowed: readonly AllowedNetwork[]
    readonly plain: readonly string[]
  }
  readonly images: {
    readonly maxBytes: number
    readonly maxFiles: number
    readonly totalBytes: number
    readonly keepMs: number
  }
  readonly egressCaPath: string | undefined
  readonly poolSizeBytes: number | undefined
  readonly guestAgentDir: string | undefined
  readonly memoryReserveBytes: number | undefined
  readonly poolReserveBytes: number | undefined
  readonly guestSilenceMs: number
  readonly objectStore: ObjectStoreConfig | undefined
  readonly objectStoreBytesPerSec: number | undefined
  readonly lazyResume: boolean
  readonly stepFile: string | undefined
  readonly stopCapsulesOnExit: boolean
  readonly logLevel: string
  readonly tracing: TracingConfig
}

/** @throws AppError `invalid_config`, naming every variable that is wrong. */
export function readConfig(env: Readonly<Record<string, string | undefined>> = process.env): HostAgentConfig {
  const values = loadConfig(environment, env)
  return {
    dir: values.WRENN_DIR,
    socketPath: values.WRENN_HOST_AGENT_SOCKET ?? `${values.WRENN_DIR}/run/host-agent.sock`,
    socketUid: values.WRENN_SOCKET_UID,
    socketGid: values.WRENN_SOCKET_GID,
    engine: values.WRENN_ENGINE,
    qemu: values.WRENN_QEMU,
    instance: values.WRENN_INSTANCE,
    networkCidr: values.WRENN_NETWORK_CIDR,
    uidBase: values.WRENN_UID_BASE,
    hotPoolMax: values.WRENN_HOT_POOL_MAX,
    hotPoolMin: Math.min(values.WRENN_HOT_POOL_MIN, values.WRENN_HOT_POOL_MAX),
    slotPool: values.WRENN_SLOT_POOL,
    resolvConfPath: values.WRENN_RESOLV_CONF,
    registries: {
      registries: values.WRENN_REGISTRIES,
      allowed: values.WRENN_REGISTRIES_ALLOW,
      plain: values.WRENN_REGISTRIES_PLAIN,
    },
    images: {
      maxBytes: values.WRENN_IMAGE_MAX_MIB * 2 ** 20,
      maxFiles: values.WRENN_IMAGE_MAX_FILES,
      totalBytes: values.WRENN_IMAGES_TOTAL_MIB * 2 ** 20,
      keepMs: values.WRENN_IMAGE_KEEP_HOURS * 3600 * 1000,
    },
    egressCaPath: values.WRENN_EGRESS_CA_FILE,
    poolSizeBytes: mebibytes(values.WRENN_POOL_SIZE_MIB),
    guestAgentDir: values.WRENN_GUEST_AGENT_DIR,
    memoryReserveBytes: mebibytes(values.WRENN_MEMORY_RESERVE_MIB),
    poolReserveBytes: mebibytes(values.WRENN_POOL_RESERVE_MIB),
    guestSilenceMs: values.WRENN_GUEST_SILENCE_SEC * 1000,
    objectStore: objectStoreConfig(values),
    lazyResume: values.WRENN_LAZY_RESUME,
    objectStoreBytesPerSec: mebibytes(values.WRENN_OBJECT_STORE_MIB_PER_SEC),
    stepFile: values.WRENN_STEP_FILE,
    stopCapsulesOnExit: values.WRENN_STOP_CAPSULES_ON_EXIT,
    logLevel: values.WRENN_LOG_LEVEL,
    tracing: readTracing(env),
  }
}

function mebibytes(mib: number | undefined): number | undefined {
  return mib === undefined ? undefined : mib * 2 ** 20
}
