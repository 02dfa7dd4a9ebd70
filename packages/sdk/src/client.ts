import type * as wire from '@wrenn/protocol'
import { Account } from './account.js'
import { ApiKeys } from './api-keys.js'
import { Audit } from './audit.js'
import { Capsules } from './capsules.js'
import { Channels } from './channels.js'
import { quota } from './convert.js'
import { Events } from './events.js'
import { Factors } from './factors.js'
import { Hosts } from './hosts.js'
import { Platform } from './platform.js'
import { Registries } from './registries.js'
import { Sessions } from './sessions.js'
import type { WebSocketConstructor } from './socket.js'
import { Teams } from './teams.js'
import { Templates } from './templates.js'
import { type ApiKeySource, type CallOptions, Transport } from './transport.js'
import type { Quota } from './types.js'
import { Usage } from './usage.js'
import { Users } from './users.js'

/**
 * Where the platform is and how to talk to it. Nothing is read from the environment, so that a browser and a server behave
 * alike.
 */
export interface WrennOptions {
  /** Origin, and a path before `/v1` where a proxy adds one. @default http://127.0.0.1:8000 */
  readonly apiUrl?: string
  /**
   * Goes into the `X-API-Key` header, and into the first message of a WebSocket. `wrenn up` writes the first one to
   * `<dir>/api-key`. The token of a person's session does as well.
   * A function is asked before each request and each connection, for tokens that change.
   */
  readonly apiKey?: ApiKeySource
  /**
   * For pages that the platform itself serves: the session is in cookies that scripts cannot read, and is refreshed when it must be.
   * @default false
   */
  readonly cookies?: boolean
  /** With `cookies`: called when a call found that there is no session any more; the call fails with AuthenticationError. */
  readonly onSignedOut?: () => void
  /** @default the runtime's own */
  readonly fetch?: typeof globalThis.fetch
  /** WebSocket class for streams and terminals. Node.js before 22 has none: pass the one of `ws`. @default the runtime's own */
  readonly webSocket?: WebSocketConstructor
  /** Longest wait for an answer; calls may set their own, and 0 waits for ever. @default 60_000 */
  readonly requestTimeoutMs?: number
}

const DEFAULT_API_URL = 'http://127.0.0.1:8000'

/**
 * A Wrenn platform.
 * @example
 * const wrenn = new Wrenn({ apiKey })
 * await using capsule = await wrenn.capsules.create()
 * console.log((await capsule.exec('uname -a')).stdout)
 */
export class Wrenn {
  /** The team's capsules. */
  readonly capsules: Capsules
  /** What capsules start from. */
  readonly templates: Templates
  /** Another machine that runs capsules. */
  readonly hosts: Hosts
  /** How builds of the team log in at registries of images. */
  readonly registries: Registries
  /** The team's keys; for clients whose own key has the scope `admin`. */
  readonly apiKeys: ApiKeys
  /** What happened in the team; for clients whose key has the scope `admin`. */
  readonly audit: Audit
  /** What happens in the team. */
  readonly events: Events
  /** Where the team's events are sent to; for clients whose key has the scope `admin`. */
  readonly channels: Channels
  /** What the team's capsules used, and how many ran. */
  readonly usage: Usage
  /** Accounts of people on the whole platform. */
  readonly users: Users
  /** The teams that the client is in, and who is in them. */
  readonly teams: Teams
  /** All of the platform, for its admins. */
  readonly platform: Platform
  /** One's own account; for people. */
  readonly account: Account
  /** What one has beside a password; for people. */
  readonly factors: Factors
  /** Where one is logged in; for people. */
  readonly sessions: Sessions
  readonly #transport: Transport

  constructor(options: WrennOptions = {}) {
    const transport = new Transport({
      apiUrl: options.apiUrl ?? DEFAULT_API_URL,
      apiKey: options.apiKey,
      fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
      webSocket: options.webSocket ?? ambientWebSocket(),
      ...(options.cookies === true ? { onSignedOut: options.onSignedOut ?? (() => {}) } : {}),
      ...(options.requestTimeoutMs === undefined ? {} : { requestTimeoutMs: options.requestTimeoutMs }),
    })
    this.capsules = new Capsules(transport)
    this.templates = new Templates(transport)
    this.hosts = new Hosts(transport)
    this.registries = new Registries(transport)
    this.apiKeys = new ApiKeys(transport)
    this.audit = new Audit(transport)
    this.events = new Events(transport)
    this.channels = new Channels(transport)
    this.teams = new Teams(transport)
    this.usage = new Usage(transport)
    this.users = new Users(transport)
    this.platform = new Platform(transport)
    this.account = new Account(transport)
    this.factors = new Factors(transport)
    this.sessions = new Sessions(transport)
    this.#transport = transport
  }

  /** What the team uses and may use. */
  async quota(options: CallOptions = {}): Promise<Quota> {
    return quota(await this.#transport.json<wire.Quota>('GET', '/v1/quota', options))
  }
}

function ambientWebSocket(): WebSocketConstructor | undefined {
  return typeof WebSocket === 'undefined' ? undefined : WebSocket
}
