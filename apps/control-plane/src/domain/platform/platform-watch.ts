import { AppError } from '@wrenn/base'
import type { HostHealth, PlatformHealth } from '@wrenn/protocol'
import type { Host } from '../../host/host.js'
import { type Hosts, noHost } from '../../host/hosts.js'
import type { LagoConfig } from '../../lago/index.js'
import type { MailConfig } from '../../mail/index.js'
import { type Db, findServerFacts, listMigrations, pingDatabase } from '../../store/database.js'
import { findLagoBacklog } from '../../store/lago-events.js'
import { findMailBacklog } from '../../store/mails.js'
import { type Count, countBuilds, countCapsules, countOperations } from '../../store/monitoring.js'
import { type HostUse, listHostUse } from '../../store/usage.js'
import { problemsOf } from './problems.js'
import type { UnknownCapsules } from './unknown-capsules.js'

interface PlatformWatchDeps {
  readonly db: Db
  readonly host: Hosts
  readonly unknownCapsules: UnknownCapsules
  readonly mail: MailConfig
  /** `undefined`: there is none. */
  readonly lago: Pick<LagoConfig, 'url'> | undefined
  /** Of this control plane. */
  readonly version: string
}

/** How much there is of what comes and goes, of all teams. */
export interface PlatformCounts {
  /** By state; no stopped ones. */
  readonly capsules: readonly Count[]
  /** Those under way, by kind. */
  readonly operations: readonly Count[]
  /** Those of templates that have not ended, by state. */
  readonly builds: readonly Count[]
}

type Status = Awaited<ReturnType<Host['status']>>
/** What a host said when it was asked, or why it said nothing. */
type Heard = Status | AppError

const unused = { running: 0, vcpus: 0, memoryMib: 0, open: 0, templates: 0 } as const

/** How hosts and services do, for admins of the platform. */
export class PlatformWatch {
  readonly #deps: PlatformWatchDeps
  readonly #startedAt = new Date()

  constructor(deps: PlatformWatchDeps) {
    this.#deps = deps
  }

  /** Asks all of them now. One that does not answer is a problem in the answer. @throws AppError when the database does not */
  async look(): Promise<PlatformHealth> {
    const { version } = this.#deps
    const [hosts, { database, replicas }, mail, lago] = await Promise.all([
      this.#hosts(),
      this.#database(),
      this.#mail(),
      this.#lago(),
    ])
    const controlPlane = { version, started_at: this.#startedAt.toISOString(), replicas }
    const health = { hosts: hosts.shown, control_plane: controlPlane, database, mail, ...lago }
    return { problems: problemsOf(health, hosts.reasons, new Date()), ...health }
  }

  /** Counts in the database. @throws AppError when it does not answer */
  async counts(): Promise<PlatformCounts> {
    const { db } = this.#deps
    const [capsules, operations, builds] = await Promise.all([countCapsules(db), countOperations(db), countBuilds(db)])
    return { capsules, operations, builds }
  }

  async #hosts(): Promise<{ shown: HostHealth[]; reasons: ReadonlyMap<HostHealth, string> }> {
    const { db, host: hosts, unknownCapsules } = this.#deps
    const [known, heard] = await Promise.all([listHostUse(db), heardOf(hosts, unknownCapsules)])
    const reasons = new Map<HostHealth, string>()
    const asked = new Set<string>()
    const shown = heard.map(({ id, address, said, unknown }) => {
      const ownId = said instanceof AppError ? (id ?? known.find((other) => other.address === address)?.id) : id
      const own = known.find((other) => other.id === ownId)
      if (ownId !== undefined) asked.add(ownId)
      const health = {
        ...toHost(own ?? { id: ownId, address, ...unused }, said),
        ...(unknown === undefined ? {} : { unknown_capsules: unknown }),
      }
      const reason = said instanceof AppError ? said.message : said.notReadyReason
      if (reason !== '') reasons.set(health, reason)
      return health
    })
    // One that is no more and has left nothing is not missed.
    const others = known.filter(({ id, open }) => !asked.has(id) && open > 0)
    return { shown: [...shown, ...others.map((other) => toHost(other, undefined))], reasons }
  }

  async #database(): Promise<{ database: PlatformHealth['database']; replicas: number }> {
    const { db } = this.#deps
    const [facts, migrations] = await Promise.all([findServerFacts(db), listMigrations(db)])
    // After the others, so that no new connection is measured with it.
    const startedAt = performance.now()
    await pingDatabase(db)
    const latencyMs = performance.now() - startedAt
    const applied = migrations.filter(({ appliedAt }) => appliedAt !== undefined)
    const database = {
      version: facts.version,
      migration: applied.at(-1)?.name ?? '',
      pending_migrations: migrations.length - applied.length,
      latency_ms: Math.round(latencyMs * 10) / 10,
    }
    return { database, replicas: facts.replicas }
  }

  async #mail(): Promise<PlatformHealth['mail']> {
    const { db, mail } = this.#deps
    const { waiting, oldestAt, givenUp } = await findMailBacklog(db)
    return {
      ...wayOf(mail),
      from: mail.from,
      waiting,
      given_up: givenUp,
      ...(oldestAt === null ? {} : { oldest_waiting_at: oldestAt.toISOString() }),
    }
  }

  async #lago(): Promise<Pick<PlatformHealth, 'lago'>> {
    const { db, lago } = this.#deps
    if (lago === undefined) return {}
    const { waiting, refused, oldestAt, problem, reason } = await findLagoBacklog(db)
    const why = problem ?? reason
    return {
      lago: {
        to: new URL(lago.url).host,
        waiting,
        refused,
        ...(oldestAt === null ? {} : { oldest_waiting_at: oldestAt.toISOString() }),
        ...(why === null ? {} : { problem: why }),
      },
    }
  }
}

/** Never with name and password, which the address of a mail server may have. */
function wayOf({ smtpUrl, outboxDir }: MailConfig): Pick<PlatformHealth['mail'], 'via' | 'to'> {
  if (smtpUrl !== undefined) return { via: 'smtp', to: new URL(smtpUrl).host }
  return outboxDir === undefined ? { via: 'none' } : { via: 'outbox', to: outboxDir }
}

/** All are asked at once. Where none has joined, that is what is said. */
async function heardOf(hosts: Hosts, unknownCapsules: UnknownCapsules) {
  if (hosts.all.length === 0) return [{ id: undefined, address: 'nowhere', said: noHost(), unknown: undefined }]
  return await Promise.all(
    hosts.all.map(async (host) => {
      const [said, unknown] = await Promise.all([
        host.status().catch((error: unknown): Heard => AppError.from(error)),
        unknownCapsules.listOf(host).catch(() => undefined), // why it does not answer is told by its status
      ])
      const ownId = said instanceof AppError ? host.id : said.hostId
      return { id: host.joinedId ?? ownId, address: host.address, said, unknown }
    }),
  )
}

type Known = Pick<HostUse, 'address' | 'running' | 'vcpus' | 'memoryMib' | 'open' | 'templates'> &
  Partial<Pick<HostUse, 'agentVersion' | 'engine' | 'lastSeenAt'>> & { readonly id: string | undefined }

function toHost(known: Known, heard: Heard | undefined): HostHealth {
  const status = heard instanceof AppError ? undefined : heard
  const lastSeenAt = status === undefined ? known.lastSeenAt : new Date()
  const agentVersion = status?.agentVersion ?? known.agentVersion
  const engine = status?.engine ?? known.engine
  return {
    address: known.address,
    answers: status !== undefined,
    running_capsules: known.running,
    used_vcpus: known.vcpus,
    used_memory_mb: known.memoryMib,
    capsules: known.open,
    templates: known.templates,
    ...(known.id === undefined ? {} : { id: known.id }),
    ...(lastSeenAt === undefined ? {} : { last_seen_at: lastSeenAt.toISOString() }),
    ...(agentVersion === undefined ? {} : { agent_version: agentVersion }),
    ...(engine === undefined ? {} : { engine }),
    ...(status === undefined ? {} : { status: toStatus(status) }),
  }
}

function toStatus(status: Status): NonNullable<HostHealth['status']> {
  return {
    ready: status.ready,
    engine_version: status.engineVersion,
    engine_reason: status.engineReason,
    kernel_version: status.kernelVersion,
    cpus: status.cpus,
    memory_bytes: Number(status.memoryBytes),
    memory_available_bytes: Number(status.memoryAvailableBytes),
    pool_bytes: Number(status.poolBytes),
    pool_free_bytes: Number(status.poolFreeBytes),
    pool_filesystem: status.poolFilesystem,
    started_at: new Date(Number(status.startedAtMs)).toISOString(),
  }
}
