import type * as wire from '@wrenn/protocol'
import { type LifecycleOptions, perform } from './lifecycle.js'
import type { CallOptions, Transport } from './transport.js'
import type { CapsuleState } from './types.js'

/** Another machine that runs capsules of the platform. */
export interface HostInfo {
  readonly id: string
  /** `pending` until it has joined; `unreachable`: it does not answer; `revoked`: it is trusted no more until it joins again. */
  readonly status: 'pending' | 'online' | 'unreachable' | 'revoked' | (string & {})
  /** Whether it gets new capsules. */
  readonly schedulable: boolean
  /** By which creates may ask for it. */
  readonly tags: readonly string[]
  /** `name:port` of its host agent; `undefined` until it has joined. */
  readonly address: string | undefined
  readonly arch: string | undefined
  readonly cpuCores: number | undefined
  readonly memoryMib: number | undefined
  readonly diskGib: number | undefined
  readonly lastHeartbeatAt: Date | undefined
  readonly certificateExpiresAt: Date | undefined
  /** Id of the person or key that made its place. */
  readonly createdBy: string
  readonly createdAt: Date
}

/** A host that may join, with what it joins by. */
export interface NewHost {
  readonly host: HostInfo
  /** Good once. Nobody sees it again. */
  readonly token: string
  readonly tokenExpiresAt: Date
}

/** Which host goes. */
export interface RemoveHostOptions extends CallOptions {
  /** Also when it has capsules or templates: they are lost. @default false */
  readonly force?: boolean
}

/** Where a capsule goes. */
export interface MoveOptions extends LifecycleOptions {
  /** Only for one that runs. @default the host that a create would go to */
  readonly hostId?: string
}

/** A capsule on its way to another host, or after that. */
export interface CapsuleMoveInfo {
  /** Of the operation, as the audit trail has it. */
  readonly id: string
  readonly capsuleId: string
  readonly teamId: string
  readonly state: 'running' | 'succeeded' | 'failed'
  /** `hibernated` at the end for a capsule that did not run. */
  readonly capsuleState: CapsuleState
  /** The host that it leaves; `undefined` when it was on none. */
  readonly fromHostId: string | undefined
  /** The host that has a place for it; `undefined` for one that hibernates. */
  readonly toHostId: string | undefined
  /** Why that one, a sentence. */
  readonly because: string | undefined
  /** The host that it is on now; `undefined` when it is on none. */
  readonly hostId: string | undefined
  /** Why it failed. */
  readonly error: { readonly code: string; readonly message: string } | undefined
  readonly createdAt: Date
  readonly updatedAt: Date
}

/** How a host is emptied. */
export interface DrainOptions extends CallOptions {
  /** How many capsules are on their way at once, 32 at most. @default 4 */
  readonly concurrency?: number
}

/** What has come of a capsule of a host that is emptied. */
export interface DrainedCapsule {
  readonly capsuleId: string
  readonly teamId: string
  /** `done`: it is on the host no more; `failed`: it is still there, and tried again. */
  readonly state: 'waiting' | 'moving' | 'done' | 'failed'
  /** That failed. */
  readonly attempts: number
  /** Of its newest move. */
  readonly operationId: string | undefined
  /** Why it failed last; of one that is `done`, why it hibernates although it ran. */
  readonly error: { readonly code: string; readonly message: string } | undefined
  readonly updatedAt: Date
}

/** How far a host is emptied. */
export interface HostDrainInfo {
  readonly hostId: string
  /** `drained`: no capsule is left. */
  readonly state: 'draining' | 'drained'
  readonly concurrency: number
  /** Capsules that were on it since this began. */
  readonly total: number
  readonly done: number
  readonly moving: number
  readonly waiting: number
  readonly failed: number
  /** Those that failed first, then those on their way; 1,000 at most. */
  readonly capsules: readonly DrainedCapsule[]
  /** That are on this host alone: they stay. 1,000 at most. */
  readonly templates: readonly { readonly id: string; readonly teamId: string; readonly name: string }[]
  readonly startedAt: Date
  /** When nothing was left. */
  readonly endedAt: Date | undefined
}

/** The machines that run capsules, where that is not the platform's own; the client's key needs the scope `platform`. */
export class Hosts {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** The oldest first. */
  async list(options: CallOptions = {}): Promise<HostInfo[]> {
    return (await this.#transport.json<wire.Host[]>('GET', '/v1/hosts', options)).map(hostInfo)
  }

  /** @throws WrennError `host_not_found` */
  async get(id: string, options: CallOptions = {}): Promise<HostInfo> {
    return hostInfo(await this.#transport.json<wire.Host>('GET', pathOf(id), options))
  }

  /**
   * Makes a place for a machine, and the token by which it joins.
   * @throws WrennError `conflict` where capsules run on the platform's own machine
   * @example
   * const { token } = await wrenn.hosts.create() // on the machine: wrenn host join https://wrenn.example token
   */
  async create(options: CallOptions = {}): Promise<NewHost> {
    return newHost(await this.#transport.json<wire.NewHost>('POST', '/v1/hosts', options))
  }

  /**
   * Another token for a host that has not joined in time, has moved, has lost what it was given, or is trusted no more. Until it is used nothing
   * changes; then what the host had is good no longer.
   * @throws WrennError `host_not_found`
   */
  async renewToken(id: string, options: CallOptions = {}): Promise<NewHost> {
    return newHost(await this.#transport.json<wire.NewHost>('POST', `${pathOf(id)}/token`, options))
  }

  /**
   * Gives a host no new capsules: before it is serviced or sent away. What it has stays, and wakes and is forked there.
   * @throws WrennError `host_not_found`
   * @example
   * for (const { id } of await wrenn.hosts.list()) await wrenn.hosts.cordon(id)
   */
  async cordon(id: string, options: CallOptions = {}): Promise<HostInfo> {
    return hostInfo(await this.#transport.json<wire.Host>('POST', `${pathOf(id)}/cordon`, options))
  }

  /** Gives it new capsules again, and has no more moved off it. @throws WrennError `host_not_found` */
  async uncordon(id: string, options: CallOptions = {}): Promise<HostInfo> {
    return hostInfo(await this.#transport.json<wire.Host>('POST', `${pathOf(id)}/uncordon`, options))
  }

  /**
   * Gives it these tags instead of those that it has; creates ask for hosts by them. What is on it stays.
   * @throws WrennError `host_not_found`, `invalid_request`
   * @example
   * await wrenn.hosts.tag(id, ['gpu', 'eu'])
   * await wrenn.capsules.create({ hostTags: ['gpu'] })
   */
  async tag(id: string, tags: readonly string[], options: CallOptions = {}): Promise<HostInfo> {
    return hostInfo(await this.#transport.json<wire.Host>('PUT', `${pathOf(id)}/tags`, { ...options, json: { tags } }))
  }

  /**
   * Moves a capsule of any team: one that runs is paused, stored, and goes on on another host; a paused one hibernates. Where that fails it is as it was.
   * @throws CapsuleNotFoundError; WrennError `no_hosts_available` when no other host has room, `invalid_state` while it has checkpoints, `not_supported` without an
   * object store, `conflict`; TimeoutError after `timeoutMs`, while the move goes on
   * @example
   * const { hostId } = await wrenn.hosts.moveCapsule('cl-…', { timeoutMs: 10 * 60_000 })
   */
  async moveCapsule(capsuleId: string, options: MoveOptions = {}): Promise<CapsuleMoveInfo> {
    const { hostId, ...call } = options
    const isDone = ({ state }: wire.CapsuleMove): boolean => state !== 'running'
    const operation = { what: 'The move', path: movePathOf(capsuleId), isDone }
    const asked = hostId === undefined ? operation : { ...operation, json: { host_id: hostId } }
    return moveInfo(await perform<wire.CapsuleMove>(this.#transport, asked, call))
  }

  /** How the newest move of a capsule does, or how it ended. @throws CapsuleNotFoundError; WrennError `not_found` when it was not moved */
  async getMove(capsuleId: string, options: CallOptions = {}): Promise<CapsuleMoveInfo> {
    return moveInfo(await this.#transport.json<wire.CapsuleMove>('GET', movePathOf(capsuleId), options))
  }

  /**
   * Cordons a host and has all that it has moved off it: running capsules go on on other hosts, paused ones hibernate. That goes on, and tries again what could not be
   * moved, until it is stopped or the host uncordoned.
   * @throws WrennError `host_not_found`, `not_supported` without an object store
   * @example
   * let drain = await wrenn.hosts.drain(id)
   * while (drain.moving + drain.waiting > 0) {
   *   await setTimeout(1_000) // of node:timers/promises
   *   drain = await wrenn.hosts.getDrain(id)
   * }
   * for (const { capsuleId, error } of drain.capsules) if (error) console.log(capsuleId, error.message)
   */
  async drain(id: string, options: DrainOptions = {}): Promise<HostDrainInfo> {
    const { concurrency, ...call } = options
    const request = { ...call, json: concurrency === undefined ? {} : { concurrency } }
    return drainInfo(await this.#transport.json<wire.HostDrain>('POST', `${pathOf(id)}/drain`, request))
  }

  /** How far it is. @throws WrennError `host_not_found`; `not_found` when it is not being emptied */
  async getDrain(id: string, options: CallOptions = {}): Promise<HostDrainInfo> {
    return drainInfo(await this.#transport.json<wire.HostDrain>('GET', `${pathOf(id)}/drain`, options))
  }

  /** Has no more moved off it; what is on its way comes to its end, and the host stays cordoned. @throws WrennError `host_not_found` */
  async stopDrain(id: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', `${pathOf(id)}/drain`, options)
  }

  /** Sends a host away: it is trusted no more. @throws WrennError `host_not_found`, `in_use` with how many `capsules` and `templates` it has in `details` */
  async remove(id: string, { force = false, ...options }: RemoveHostOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', `${pathOf(id)}${force ? '?force=true' : ''}`, options)
  }

  /**
   * Has another authority sign for hosts from now on; the one before is trusted until no host has a certificate of it.
   * @throws WrennError `conflict` while that is so
   */
  async rotateAuthority(options: CallOptions = {}): Promise<void> {
    await this.#transport.send('POST', '/v1/hosts/rotate-authority', options)
  }
}

function pathOf(id: string): string {
  return `/v1/hosts/${encodeURIComponent(id)}`
}

function movePathOf(capsuleId: string): string {
  return `/v1/admin/capsules/${encodeURIComponent(capsuleId)}/move`
}

function moveInfo(move: wire.CapsuleMove): CapsuleMoveInfo {
  return {
    id: move.id,
    capsuleId: move.capsule_id,
    teamId: move.team_id,
    state: move.state,
    capsuleState: move.capsule_state,
    fromHostId: move.from_host_id,
    toHostId: move.to_host_id,
    because: move.because,
    hostId: move.host_id,
    error: move.error,
    createdAt: new Date(move.created_at),
    updatedAt: new Date(move.updated_at),
  }
}

function drainInfo(drain: wire.HostDrain): HostDrainInfo {
  const { host_id: hostId, started_at: startedAt, ended_at: endedAt, capsules, templates, ...rest } = drain
  return {
    ...rest,
    hostId,
    capsules: capsules.map((each) => ({
      capsuleId: each.capsule_id,
      teamId: each.team_id,
      state: each.state,
      attempts: each.attempts,
      operationId: each.operation_id,
      error: each.error,
      updatedAt: new Date(each.updated_at),
    })),
    templates: templates.map(({ team_id: teamId, ...each }) => ({ ...each, teamId })),
    startedAt: new Date(startedAt),
    endedAt: timeOf(endedAt),
  }
}

function hostInfo(host: wire.Host): HostInfo {
  return {
    id: host.id,
    status: host.status,
    schedulable: host.schedulable,
    tags: host.tags,
    address: host.address,
    arch: host.arch,
    cpuCores: host.cpu_cores,
    memoryMib: host.memory_mb,
    diskGib: host.disk_gb,
    lastHeartbeatAt: timeOf(host.last_heartbeat_at),
    certificateExpiresAt: timeOf(host.certificate_expires_at),
    createdBy: host.created_by,
    createdAt: new Date(host.created_at),
  }
}

function newHost({ host, registration_token, registration_expires_at }: wire.NewHost): NewHost {
  return { host: hostInfo(host), token: registration_token, tokenExpiresAt: new Date(registration_expires_at) }
}

function timeOf(text: string | undefined): Date | undefined {
  return text === undefined ? undefined : new Date(text)
}
