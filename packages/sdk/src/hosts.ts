import type * as wire from '@wrenn/protocol'
import type { CallOptions, Transport } from './transport.js'

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

  /** Gives it new capsules again. @throws WrennError `host_not_found` */
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
