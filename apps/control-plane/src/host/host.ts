import { AppError } from '@wrenn/base'
import type { GetHostResponse, Template } from '@wrenn/protocol/host'
import { fromHostError } from './errors.js'
import type { HostPlace } from './remote-host.js'
import type { HostClient } from './transport.js'

const STATUS_TIMEOUT_MS = 3_000
const TEMPLATES_CACHE_MS = 5_000

/** Calls of one host, or each of the host that has the capsule or snapshot which it names. */
export abstract class HostCalls {
  abstract readonly client: HostClient

  /** Built-in templates. @throws AppError `host_unavailable`, `timeout` */
  abstract templates(): Promise<readonly Template[]>

  /** Calls a host; every failure comes out as an `AppError`. */
  async call<T>(ask: (client: HostClient) => Promise<T>): Promise<T> {
    try {
      return await ask(this.client)
    } catch (error) {
      throw fromHostError(error)
    }
  }

  /** The template of this name or alias, if there is one. */
  async findTemplate(name: string): Promise<Template | undefined> {
    return (await this.templates()).find((template) => isCalled(template, name))
  }

  /** @throws AppError `template_not_found` */
  async template(name: string): Promise<Template> {
    const found = await this.findTemplate(name)
    if (found === undefined) {
      throw new AppError('template_not_found', `There is no template "${name}".`, { details: { template: name } })
    }
    return found
  }
}

/** Whether the name is the template's own or an alias of it. */
function isCalled(template: Template, name: string): boolean {
  return template.name === name || template.aliases.includes(name)
}

/** One machine that runs capsules. */
export class Host extends HostCalls {
  readonly client: HostClient
  /** As which it has joined; `undefined`: the platform has this one alone, and all capsules are there. */
  readonly joinedId: string | undefined
  readonly #place: HostPlace
  /** Its own id, once it said so and the database has it. */
  id: string | undefined
  /** Whether nothing was heard of it for so long that its capsules count as missing. */
  isSilent = false
  #templates: { readonly list: readonly Template[]; readonly untilMs: number } | undefined

  constructor(client: HostClient, place: HostPlace, joinedId?: string) {
    super()
    this.client = client
    this.#place = place
    this.joinedId = joinedId
  }

  get address(): string {
    return typeof this.#place === 'string' ? this.#place : this.#place.address
  }

  /** As it said last; empty until it did. */
  get knownTemplates(): readonly Template[] {
    return this.#templates?.list ?? []
  }

  /** What the host says of itself; answers also while it is starting. @throws AppError `host_unavailable`, `timeout` */
  async status(): Promise<GetHostResponse> {
    return await this.call((client) => client.getHost({}, { timeoutMs: STATUS_TIMEOUT_MS }))
  }

  /** Built-in templates, asked for anew after a few seconds. @throws AppError `host_unavailable`, `timeout` */
  async templates(): Promise<readonly Template[]> {
    if (this.#templates !== undefined && this.#templates.untilMs > performance.now()) return this.#templates.list
    const { templates } = await this.call((client) => client.listTemplates({}, { timeoutMs: STATUS_TIMEOUT_MS }))
    this.#templates = { list: templates, untilMs: performance.now() + TEMPLATES_CACHE_MS }
    return templates
  }
}
