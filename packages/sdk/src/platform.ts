import type * as wire from '@wrenn/protocol'
import { type ListAuditOptions, listEntries } from './audit.js'
import { date } from './convert.js'
import type { CallOptions, Transport } from './transport.js'
import type { AuditEntry, CapsuleState } from './types.js'
import {
  type AnyUsageInfo,
  anyUsage,
  checkUsage,
  type RecomputedUsageInfo,
  type UsageCheck,
  type UsageSpan,
} from './usage.js'

const PAGE_SIZE = 1_000

/** A capsule of any team: that it is there, and what it takes. */
export interface AnyCapsuleInfo {
  readonly id: string
  readonly name: string | undefined
  readonly state: CapsuleState
  readonly teamId: string
  readonly teamName: string
  readonly hostId: string | undefined
  readonly template: string
  readonly vcpus: number
  readonly memoryMib: number
  /** Of the pool, that only it holds; `undefined` until measured. */
  readonly diskBytes: number | undefined
  readonly createdAt: Date
  readonly lastActiveAt: Date | undefined
}

/** Which capsules are listed; what is given must all be so. */
export interface ListAnyCapsulesOptions extends CallOptions {
  readonly state?: Exclude<CapsuleState, 'stopped'>
  readonly teamId?: string
}

/** Something that is wrong, and what to do about it. */
export interface HealthProblem {
  /** `error`: something does not work. `warning`: it soon may not. */
  readonly severity: 'error' | 'warning'
  readonly part: 'host' | 'database' | 'mail' | 'lago'
  /** A sentence. */
  readonly message: string
  readonly nextStep: string
}

/** A machine that runs capsules. */
export interface HostHealth {
  /** `undefined` for one that has never answered. */
  readonly id: string | undefined
  readonly address: string
  readonly answers: boolean
  readonly lastSeenAt: Date | undefined
  readonly runningCapsules: number
  /** Of running capsules. */
  readonly usedVcpus: number
  /** Of running capsules. */
  readonly usedMemoryMib: number
  /** Sleeping ones too. */
  readonly capsules: number
  /** That are on it alone, each version that has a tag by itself. */
  readonly templates: number
  /** Ids of capsules that it has and the database does not know; `undefined` while it does not answer. */
  readonly unknownCapsules: readonly string[] | undefined
  readonly agentVersion: string | undefined
  readonly engine: string | undefined
  /** What it says of itself; `undefined` while it does not answer. */
  readonly status: HostStatus | undefined
}

/** What a host says of itself. */
export interface HostStatus {
  /** A create will work. */
  readonly isReady: boolean
  readonly engineVersion: string
  /** Why it is this engine. */
  readonly engineReason: string
  /** Of its guests. */
  readonly kernelVersion: string
  readonly cpus: number
  readonly memoryBytes: number
  readonly memoryAvailableBytes: number
  readonly poolBytes: number
  readonly poolFreeBytes: number
  readonly poolFilesystem: string
  readonly startedAt: Date
}

/** How hosts and services do. */
export interface PlatformHealth {
  /** The worst first. */
  readonly problems: readonly HealthProblem[]
  readonly hosts: readonly HostHealth[]
  readonly controlPlane: {
    readonly version: string
    /** Of the one that answers. */
    readonly startedAt: Date
    /** Control planes that use this database. */
    readonly replicas: number
  }
  readonly database: {
    readonly version: string
    /** The newest one that was applied. */
    readonly migration: string
    readonly pendingMigrations: number
    readonly latencyMs: number
  }
  readonly mail: {
    readonly via: 'smtp' | 'outbox' | 'none'
    /** Host and port of the mail server, or the folder. */
    readonly to: string | undefined
    readonly from: string
    readonly waiting: number
    readonly oldestWaitingAt: Date | undefined
    /** In the last 24 hours. */
    readonly givenUp: number
  }
  /** The billing system that is told what teams used; `undefined` where there is none. */
  readonly lago: LagoHealth | undefined
}

/** What Lago has not taken yet. */
export interface LagoHealth {
  /** Host and port of it. */
  readonly to: string
  /** Events; those that it refused included. */
  readonly waiting: number
  readonly oldestWaitingAt: Date | undefined
  /** Events that it refused for themselves; they are tried again. */
  readonly refused: number
  /** Why nothing is sent now, or why one was refused. */
  readonly problem: string | undefined
}

/** The platform as a whole; the client's key needs the scope `platform`, a person to be an admin of it. */
export class Platform {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** The capsules of all teams that are not stopped, newest first, page after page as they are asked for. */
  async *capsules(options: ListAnyCapsulesOptions = {}): AsyncGenerator<AnyCapsuleInfo> {
    const { state, teamId, ...call } = options
    let cursor: string | undefined
    do {
      const query = { state, team_id: teamId, limit: PAGE_SIZE, cursor }
      const page = await this.#transport.json<wire.AnyCapsulePage>('GET', '/v1/admin/capsules', { ...call, query })
      yield* page.items.map(anyCapsuleInfo)
      cursor = page.next_cursor
    } while (cursor !== undefined)
  }

  /** What happened on the platform and in no team: sign-ups, plans, logins with addresses that nobody has. Newest first. */
  audit(options: ListAuditOptions = {}): AsyncGenerator<AuditEntry> {
    return listEntries(this.#transport, '/v1/admin/audit-logs', options)
  }

  /** What each team used in days in UTC, thirty of them unless they are said. */
  async usage(options: CallOptions & UsageSpan = {}): Promise<AnyUsageInfo> {
    const { from, to, ...call } = options
    const query = { from, to }
    return anyUsage(await this.#transport.json<wire.AnyUsage>('GET', '/v1/admin/usage', { ...call, query }))
  }

  /** The same as a table of comma-separated values with a header. */
  async usageCsv(options: CallOptions & UsageSpan = {}): Promise<string> {
    const { from, to, ...call } = options
    const query = { from, to, format: 'csv' }
    return await (await this.#transport.request('GET', '/v1/admin/usage', { ...call, query })).text()
  }

  /** Compares the usage of all teams, or of one, with the ledger. */
  async verifyUsage(options: CallOptions & UsageSpan & { readonly teamId?: string } = {}): Promise<UsageCheck> {
    return await checkUsage(this.#transport, '/v1/admin/usage/verify', options)
  }

  /** Makes the sums of days anew of the ledger, as far as it is kept. @throws WrennError `invalid_request` for more than 92 days */
  async recomputeUsage(from: string, to: string, options: CallOptions = {}): Promise<RecomputedUsageInfo> {
    const body = { ...options, json: { from, to }, idempotent: true }
    return await this.#transport.json<wire.RecomputedUsage>('POST', '/v1/admin/usage/recompute', body)
  }

  /** Destroys a capsule that a host has and the database does not know. @throws WrennError `conflict` for one that it knows */
  async destroyUnknownCapsule(id: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', `/v1/admin/unknown-capsules/${encodeURIComponent(id)}`, options)
  }

  /** How hosts and services do now: what is wrong first, with the next step. */
  async health(options: CallOptions = {}): Promise<PlatformHealth> {
    return platformHealth(await this.#transport.json<wire.PlatformHealth>('GET', '/v1/admin/health', options))
  }
}

function anyCapsuleInfo(capsule: wire.AnyCapsule): AnyCapsuleInfo {
  return {
    id: capsule.id,
    name: capsule.name,
    state: capsule.state,
    teamId: capsule.team_id,
    teamName: capsule.team_name,
    hostId: capsule.host_id,
    template: capsule.template,
    vcpus: capsule.vcpus,
    memoryMib: capsule.memory_mb,
    diskBytes: capsule.disk_bytes,
    createdAt: new Date(capsule.created_at),
    lastActiveAt: date(capsule.last_active_at),
  }
}

function platformHealth({
  problems,
  hosts,
  control_plane: control,
  database,
  mail,
  lago,
}: wire.PlatformHealth): PlatformHealth {
  return {
    problems: problems.map(({ next_step: nextStep, ...problem }) => ({ ...problem, nextStep })),
    hosts: hosts.map(hostHealth),
    controlPlane: {
      version: control.version,
      startedAt: new Date(control.started_at),
      replicas: control.replicas,
    },
    database: {
      version: database.version,
      migration: database.migration,
      pendingMigrations: database.pending_migrations,
      latencyMs: database.latency_ms,
    },
    mail: {
      via: mail.via,
      to: mail.to,
      from: mail.from,
      waiting: mail.waiting,
      oldestWaitingAt: date(mail.oldest_waiting_at),
      givenUp: mail.given_up,
    },
    lago: lago && {
      to: lago.to,
      waiting: lago.waiting,
      oldestWaitingAt: date(lago.oldest_waiting_at),
      refused: lago.refused,
      problem: lago.problem,
    },
  }
}

function hostHealth(host: wire.HostHealth): HostHealth {
  return {
    id: host.id,
    address: host.address,
    answers: host.answers,
    lastSeenAt: date(host.last_seen_at),
    runningCapsules: host.running_capsules,
    usedVcpus: host.used_vcpus,
    usedMemoryMib: host.used_memory_mb,
    capsules: host.capsules,
    templates: host.templates,
    unknownCapsules: host.unknown_capsules,
    agentVersion: host.agent_version,
    engine: host.engine,
    status: host.status && hostStatus(host.status),
  }
}

function hostStatus(status: NonNullable<wire.HostHealth['status']>): HostStatus {
  return {
    isReady: status.ready,
    engineVersion: status.engine_version,
    engineReason: status.engine_reason,
    kernelVersion: status.kernel_version,
    cpus: status.cpus,
    memoryBytes: status.memory_bytes,
    memoryAvailableBytes: status.memory_available_bytes,
    poolBytes: status.pool_bytes,
    poolFreeBytes: status.pool_free_bytes,
    poolFilesystem: status.pool_filesystem,
    startedAt: new Date(status.started_at),
  }
}
